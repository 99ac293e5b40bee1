"""The bodies that programs send, beside those that SGLang's own client sent for the same programs.

`data/sglang_bodies.json` holds what the clients of SGLang 0.4.6.post4 and 0.5.23 sent to a recording server for each of
`body_programs`; `record_sglang_bodies` wrote it. Where ours differ, the difference stands in `as_sglang`, with its reason in
docs/language.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import sgl_jupyter as sgl

from .body_programs import answer, programs
from .fake_backend import within
from .fake_server import FakeServer, serve
from .record_sglang_bodies import DATA

RECORDED: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(DATA.read_text(encoding="utf-8"))
"""By the version of SGLang's client, and the name of the program."""


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with serve() as fake:
        fake.respond = answer
        yield fake


def as_sglang(body: dict[str, Any]) -> dict[str, Any]:
    """Our body, as SGLang's client writes the same request."""
    body = {name: value for name, value in body.items() if name != "stream"}  # every generation is streamed
    if "input_ids" in body:  # choices without their prompt: here their own tokens, there the prompt's last ones too
        ids = [[1, *own] for own in body["input_ids"]]
        return {"input_ids": ids, "sampling_params": {"max_new_tokens": 0}, "return_logprob": True}
    if isinstance(body["text"], list):  # the scoring of choices
        images = {"image_data": body["image_data"][0]} if "image_data" in body else {}
        body |= {"text": body["text"][1:], "logprob_start_len": body["logprob_start_len"] - 1, **images}
    sampling = body["sampling_params"]
    if "stop_regex" in sampling:
        (sampling["stop_regex"],) = sampling["stop_regex"]  # a list, as for stop
    if sampling.get("max_new_tokens") == 0:
        body["sampling_params"] = {"max_new_tokens": 0} | ({"temperature": 0} if isinstance(body["text"], list) else {})
    return body


def without_defaults(body: dict[str, Any]) -> dict[str, Any]:
    """SGLang's body, without what later clients send and earlier servers refuse."""
    sampling = {name: value for name, value in body["sampling_params"].items() if (name, value) != ("stop_regex", [])}
    return {name: value for name, value in body.items() if name != "stream"} | {"sampling_params": sampling}


def key(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True)


@pytest.mark.parametrize(("version", "name"), [(version, name) for version in RECORDED for name in RECORDED[version]])
def test_a_programs_requests_are_those_of_sglangs_own_client(version: str, name: str, server: FakeServer) -> None:
    server.bodies.clear()
    within(20, programs(sgl)[name], sgl.RuntimeEndpoint(server.url))
    mine = [as_sglang(body) for body in server.bodies]
    theirs = [without_defaults(body) for body in RECORDED[version][name]]
    assert sorted(mine, key=key) == sorted(theirs, key=key)


def test_every_program_was_recorded_with_both_clients() -> None:
    assert set(RECORDED) == {"0.4.6.post4", "0.5.23"}
    assert set(RECORDED["0.5.23"]) == set(programs(sgl))
    assert set(RECORDED["0.4.6.post4"]) == set(programs(sgl)) - {"stop_regex"}


def test_every_generation_of_one_text_is_streamed(server: FakeServer) -> None:
    server.bodies.clear()
    programs(sgl)["chat"](sgl.RuntimeEndpoint(server.url))
    assert [body["stream"] for body in server.bodies] == [True, True]
