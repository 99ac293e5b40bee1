"""The bodies that programs send, beside those that SGLang's own client sent for the same programs.

`data/sglang_bodies.json` holds what SGLang 0.4.6.post4 sent to a recording server for each of `body_programs`. Where ours differ,
the difference stands in `as_sglang`, with its reason in docs/language.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

import sgl_jupyter as sgl

from .body_programs import programs
from .fake_backend import within
from .fake_server import FakeServer, serve, sse

RECORDED: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "data" / "sglang_bodies.json").read_text(encoding="utf-8")
)


def answer(body: dict[str, Any]) -> Response:
    """What the recording server answered: every generation is "7", every prompt has five tokens."""

    def one(choice: bool = False) -> dict[str, Any]:
        logprobs = [[None, 1, "x"], *([[-0.1, 2, "y"]] if choice else [])]
        counts = {"prompt_tokens": 5, "completion_tokens": 1, "finish_reason": {"type": "stop"}}
        return {"text": "7", "meta_info": {**counts, "input_token_logprobs": logprobs}}

    if body.get("stream"):
        return sse(one())
    if isinstance(body["text"], list):
        return JSONResponse([one(choice=bool(i)) for i in range(len(body["text"]))])
    return JSONResponse([one()] * n if (n := body["sampling_params"].get("n", 1)) > 1 else one())


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with serve() as fake:
        fake.respond = answer
        yield fake


def as_sglang(body: dict[str, Any]) -> dict[str, Any]:
    """Our body, as SGLang's client writes the same request."""
    body = {name: value for name, value in body.items() if name != "stream"}  # every generation is streamed
    if isinstance(body["text"], list):  # the scoring of choices
        images = {"image_data": body["image_data"][0]} if "image_data" in body else {}
        body |= {"text": body["text"][1:], "logprob_start_len": body["logprob_start_len"] - 1, **images}
    if body["sampling_params"].get("max_new_tokens") == 0:
        body["sampling_params"] = {"max_new_tokens": 0} | ({"temperature": 0} if isinstance(body["text"], list) else {})
    return body


def key(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_programs_requests_are_those_of_sglangs_own_client(name: str, server: FakeServer) -> None:
    server.bodies.clear()
    within(20, programs(sgl)[name], sgl.RuntimeEndpoint(server.url))
    mine = [as_sglang(body) for body in server.bodies]
    theirs = [{k: v for k, v in body.items() if k != "stream"} for body in RECORDED[name]]
    assert sorted(mine, key=key) == sorted(theirs, key=key)


def test_every_program_was_recorded() -> None:
    assert set(programs(sgl)) == set(RECORDED)


def test_every_generation_of_one_text_is_streamed(server: FakeServer) -> None:
    server.bodies.clear()
    programs(sgl)["chat"](sgl.RuntimeEndpoint(server.url))
    assert [body["stream"] for body in server.bodies] == [True, True]
