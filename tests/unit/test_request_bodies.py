"""The bodies that programs send, beside those that SGLang's own client sent for the same programs.

`sglang_client` recorded what the clients of SGLang 0.4.6.post4 and 0.5.23 sent to the server that answers here, and the texts and
variables that came of it. Where our bodies differ, the difference stands in `as_sglang`, with its reason in docs/language.md.
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
from .sglang_client import end_of, recorded

RECORDED = recorded()


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


@pytest.mark.parametrize("line", RECORDED, ids=lambda line: f"{line['client']}-{line['program']}")
def test_a_programs_requests_and_its_end_are_those_of_sglangs_own_client(
    line: dict[str, Any], server: FakeServer
) -> None:
    server.bodies.clear()
    states = within(20, programs(sgl)[line["program"]], sgl.RuntimeEndpoint(server.url))
    mine = [as_sglang(body) for body in server.bodies]
    theirs = [without_defaults(body) for body in line["bodies"]]
    assert sorted(mine, key=key) == sorted(theirs, key=key)
    assert not line["ends"] or [end_of(state) for state in states] == line["ends"]


def test_every_program_was_recorded_with_both_clients() -> None:
    names = {(line["client"], line["program"]) for line in RECORDED}
    assert names == {(client, name) for client in ("0.4.6.post4", "0.5.23") for name in programs(sgl)} - {
        ("0.4.6.post4", "stop_regex")
    }
    without_end = {line["program"] for line in RECORDED if not line["ends"]}
    assert without_end == {"cache", "samples", "select_greedily", "select_by_gain"}, "UB-8, UB-9"


def test_every_generation_of_one_text_is_streamed(server: FakeServer) -> None:
    server.bodies.clear()
    programs(sgl)["chat"](sgl.RuntimeEndpoint(server.url))
    assert [body["stream"] for body in server.bodies] == [True, True]
