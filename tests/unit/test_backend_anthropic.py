"""The Anthropic backend, through Anthropic's own client, against a scripted server with the Messages API's wire form."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import pytest
from starlette.responses import JSONResponse

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import UnsupportedFeature
from sgl_jupyter.lang.program import begin_state

from .fake_backend import within
from .fake_server import sse
from .fake_vendor import FakeVendor, event

pytest.importorskip("anthropic", reason="the package anthropic is not installed, so its backend is not tested")

PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)


def claude(api: FakeVendor) -> sgl.Anthropic:
    return sgl.Anthropic("a-model", base_url=api.url, api_key="key", max_retries=0)


@sgl.function
def qa(s: Any, answer: Any) -> None:
    s += sgl.system("S") + sgl.user("Q") + sgl.assistant(answer)


def sent(api: FakeVendor, **settings: Any) -> dict[str, Any]:
    """What a generation with these settings adds to the request."""
    qa.run(sgl.gen("x", max_tokens=7, **settings), backend=claude(api)).sync()
    always = {"model", "system", "messages", "stream", "max_tokens"}
    return {name: value for name, value in api.bodies[-1].items() if name not in always}


def test_a_program_runs(api: FakeVendor) -> None:
    state = qa.run(sgl.gen("x", max_tokens=7), backend=claude(api))
    assert state["x"] == "Hello, world!"
    assert api.asked[0].path == "/v1/messages"
    assert api.bodies == [
        {
            "model": "a-model", "system": "S", "messages": [{"role": "user", "content": "Q"}], "max_tokens": 7,
            "stream": True,
        }
    ]  # fmt: skip
    assert state.get_meta_info("x") == {
        "id": "msg_1", "finish_reason": {"type": "stop", "matched": None},
        "prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 5,
    }  # fmt: skip
    pieces = [e.text for e in state.log.events if getattr(e, "origin", None) == "generated"]  # type: ignore[union-attr]
    assert pieces == ["Hello", ", wor", "ld!"]


def test_stop_strings(api: FakeVendor) -> None:
    api.finish = "stop_sequence"
    state = qa.run(sgl.gen("x", stop=["\n"]), backend=claude(api))
    assert state.get_meta_info("x")["finish_reason"] == {"type": "stop", "matched": "\n"}  # type: ignore[index]
    assert api.bodies[0]["stop_sequences"] == ["\n"]


def test_an_answer_that_is_cut(api: FakeVendor) -> None:
    api.finish = "max_tokens"
    state = qa.run(sgl.gen("x"), backend=claude(api))
    assert state.get_meta_info("x")["finish_reason"] == {"type": "length", "length": 4}  # type: ignore[index]


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.0), ("top_p", 0.5), ("top_k", 5)])
def test_sampling_goes_by_the_version_of_the_api_that_knows_it(api: FakeVendor, name: str, value: Any) -> None:
    assert sent(api, **{name: value}) == {name: value}
    assert api.asked[-1].headers["anthropic-version"] == "2023-06-01"


def test_a_begun_message_is_the_last_one(api: FakeVendor) -> None:
    qa.run("The answer is" + sgl.gen("x"), backend=claude(api)).sync()
    assert api.bodies[0]["messages"][-1] == {"role": "assistant", "content": "The answer is"}


def test_a_schema(api: FakeVendor) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    strict = schema | {"additionalProperties": False}
    assert sent(api, json_schema=schema) == {"output_config": {"format": {"type": "json_schema", "schema": strict}}}


def test_choices_and_types_by_schema(api: FakeVendor) -> None:
    api.texts = ['{"value": "no"}']
    assert qa.run(sgl.select("x", ["yes", "no"]), backend=claude(api))["x"] == "no"
    schema = api.bodies[0]["output_config"]["format"]["schema"]
    assert schema["properties"]["value"] == {"type": "string", "enum": ["yes", "no"]}
    assert "temperature" not in api.bodies[0]
    api.texts = ['{"value": 42}']
    assert qa.run(sgl.gen_int("x"), backend=claude(api))["x"] == "42"
    with pytest.raises(UnsupportedFeature, match="dtype and choices after other text"):
        qa.run("I say " + sgl.select("x", ["yes", "no"]), backend=claude(api)).sync()


def test_images(api: FakeVendor) -> None:
    state = begin_state(claude(api))
    state += sgl.user("What is this?" + sgl.image(PNG)) + sgl.assistant(sgl.gen("x"))
    state.sync()
    words, picture = api.bodies[0]["messages"][0]["content"]
    assert words == {"type": "text", "text": "What is this?"}
    assert picture["source"] == {
        "type": "base64",
        "media_type": "image/png",
        "data": base64.b64encode(PNG).decode(),
    }


def test_an_image_elsewhere_is_left_to_the_server(api: FakeVendor) -> None:
    state = begin_state(claude(api))
    state += sgl.user(sgl.image("https://example.org/cat.png")) + sgl.assistant(sgl.gen("x"))
    state.sync()
    assert api.bodies[0]["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}}
    ]


def test_samples_are_so_many_requests(api: FakeVendor) -> None:
    assert qa.run(sgl.gen("x", n=3), backend=claude(api))["x"] == ["Hello, world!"] * 3
    assert len(api.bodies) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("regex", "a+"),
        ("ebnf", 'root ::= "a"'),
        ("min_p", 0.1),
        ("frequency_penalty", 0.5),
        ("presence_penalty", 0.5),
        ("seed", 1),
        ("logit_bias", {5: 1.0}),
        ("ignore_eos", True),
        ("return_logprob", True),
    ],
)
def test_what_it_cannot_do_is_an_error_that_names_it(api: FakeVendor, name: str, value: Any) -> None:
    with pytest.raises(UnsupportedFeature, match=f"Anthropic does not support {name}="):
        sent(api, **{name: value})
    assert not api.bodies


def test_a_refusal_is_told_in_the_servers_words(api: FakeVendor) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too many"}}
    api.respond = lambda body: JSONResponse(error, 400)
    with pytest.raises(sgl.BackendError, match=f"max_tokens: too many \\(HTTP 400 from {api.url}"):
        qa.run(sgl.gen("x"), backend=claude(api)).sync()


def test_an_error_in_a_stream_is_raised_with_its_message(api: FakeVendor) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    api.respond = lambda body: sse(event(error, "error"), done=False)
    with pytest.raises(sgl.BackendError, match="Overloaded"):
        qa.run(sgl.gen("x"), backend=claude(api)).sync()


def test_a_refusal_of_the_models_is_an_error(api: FakeVendor) -> None:
    api.finish = "refusal"
    with pytest.raises(sgl.BackendError, match="a-model refused to answer"):
        qa.run(sgl.gen("x"), backend=claude(api)).sync()


def test_a_stream_that_ends_too_early_is_an_error(api: FakeVendor) -> None:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "part"}}
    api.respond = lambda body: sse(event(delta, delta["type"]), done=False)  # type: ignore[arg-type]
    with pytest.raises(sgl.BackendUnreachable, match="closed the connection before the answer was complete"):
        qa.run(sgl.gen("x"), backend=claude(api)).sync()


def test_cancel_closes_the_request(api: FakeVendor) -> None:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}}
    api.respond = lambda body: api.endless(f"event: content_block_delta\ndata: {json.dumps(delta)}\n\n".encode())
    state = qa.run(sgl.gen("x"), backend=claude(api), stream=True)
    assert next(state.text_iter("x")) == "Hel"
    state.cancel()
    assert api.left_early.wait(5)
    assert within(5, lambda: state["x"]) == "Hel"


def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anthropic", None)
    with pytest.raises(ImportError, match=r"anthropic is not installed: pip install 'sgl-jupyter\[anthropic\]'"):
        sgl.Anthropic("claude")
