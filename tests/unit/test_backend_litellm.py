"""The LiteLLM backend, through LiteLLM itself, which here speaks to a scripted server in OpenAI's wire form."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from starlette.responses import JSONResponse

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import UnsupportedFeature
from sgl_jupyter.lang.program import begin_state

from .fake_backend import within
from .fake_server import sse
from .fake_vendor import FakeVendor, event, openai_chunk

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask the internet for prices
pytest.importorskip("litellm", reason="the package litellm is not installed, so its backend is not tested")

PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)


def lite(api: FakeVendor, **options: Any) -> sgl.LiteLLM:
    return sgl.LiteLLM("openai/a-model", base_url=api.url, api_key="key", max_retries=0, **options)


@sgl.function
def qa(s: Any, answer: Any) -> None:
    s += sgl.system("S") + sgl.user("Q") + sgl.assistant(answer)


def test_a_program_runs(api: FakeVendor) -> None:
    backend = lite(api, default_headers={"x-team": "a"})
    state = qa.run(sgl.gen("x", max_tokens=7, stop="\n", seed=3, top_p=0.5), backend=backend, temperature=0.0)
    assert state["x"] == "Hello, world!"
    assert api.bodies == [
        {
            "model": "a-model", "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
            "max_tokens": 7, "temperature": 0.0, "top_p": 0.5, "stop": ["\n"], "seed": 3,
            "stream": True, "stream_options": {"include_usage": True},
        }
    ]  # fmt: skip
    assert api.asked[0].headers["x-team"] == "a"
    meta_info = state.get_meta_info("x")
    assert meta_info is not None
    assert meta_info["finish_reason"] == {"type": "stop", "matched": None}
    counts = {name: meta_info[name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
    assert counts == {"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 5}


@pytest.mark.parametrize(
    ("name", "value", "body"),
    [
        ("frequency_penalty", 0.5, {"frequency_penalty": 0.5}),
        ("presence_penalty", 0.5, {"presence_penalty": 0.5}),
        ("logit_bias", {5: -1.0}, {"logit_bias": {"5": -1.0}}),
        ("return_logprob", True, {"logprobs": True, "top_logprobs": 0}),
    ],
)
def test_openais_parameters_go_along(api: FakeVendor, name: str, value: Any, body: dict[str, Any]) -> None:
    qa.run(sgl.gen("x", **{name: value}), backend=lite(api)).sync()
    assert body.items() <= api.bodies[0].items()


def test_log_probabilities(api: FakeVendor) -> None:
    entry = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    api.respond = lambda body: sse(openai_chunk(True, "a", finish="length", logprobs={"content": [entry]}))
    state = qa.run(sgl.gen("x", return_logprob=True), backend=lite(api))
    assert state.get_meta_info("x")["output_token_logprobs"] == [(-0.5, -1, "a")]  # type: ignore[index]


def test_images_are_parts_of_a_message(api: FakeVendor) -> None:
    state = begin_state(lite(api))
    state += sgl.user(sgl.image(PNG)) + sgl.assistant(sgl.gen("x"))
    state.sync()
    (picture,) = api.bodies[0]["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")


def test_choices_and_types_by_schema(api: FakeVendor) -> None:
    api.texts = ['{"value": "no"}']
    assert qa.run(sgl.select("x", ["yes", "no"]), backend=lite(api))["x"] == "no"
    schema = api.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["value"] == {"type": "string", "enum": ["yes", "no"]}
    api.texts = ['{"value": 42}']
    assert qa.run(sgl.gen_int("x"), backend=lite(api))["x"] == "42"


def test_samples_are_so_many_requests(api: FakeVendor) -> None:
    assert qa.run(sgl.gen("x", n=3), backend=lite(api))["x"] == ["Hello, world!"] * 3
    assert len(api.bodies) == 3


@pytest.mark.parametrize(
    ("name", "value"), [("regex", "a+"), ("ebnf", 'root ::= "a"'), ("top_k", 5), ("min_p", 0.1), ("ignore_eos", True)]
)
def test_what_it_cannot_do_is_an_error_that_names_it(api: FakeVendor, name: str, value: Any) -> None:
    with pytest.raises(UnsupportedFeature, match=f"LiteLLM does not support {name}="):
        qa.run(sgl.gen("x", **{name: value}), backend=lite(api)).sync()
    assert not api.bodies


def test_a_begun_message_cannot_be_continued(api: FakeVendor) -> None:
    with pytest.raises(UnsupportedFeature, match="gen must be right after assistant_begin"):
        qa.run("The answer is" + sgl.gen("x"), backend=lite(api)).sync()


def test_a_refusal_is_told_in_the_servers_words(api: FakeVendor) -> None:
    api.respond = lambda body: JSONResponse({"error": {"message": "no such model"}}, 400)
    with pytest.raises(sgl.BackendError, match="no such model") as caught:
        qa.run(sgl.gen("x"), backend=lite(api)).sync()
    assert caught.value.status == 400


def test_cancel_closes_the_request(api: FakeVendor) -> None:
    api.respond = lambda body: api.endless(event(openai_chunk(True, "Hel")) + event(openai_chunk(True, "lo")))
    state = qa.run(sgl.gen("x"), backend=lite(api), stream=True)
    assert next(state.text_iter("x")).startswith("Hel")
    state.cancel()
    assert api.left_early.wait(5)
    assert within(5, lambda: state["x"]).startswith("Hel")


def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(ImportError, match=r"litellm is not installed: pip install 'sgl-jupyter\[litellm\]'"):
        sgl.LiteLLM("openai/gpt-5")
