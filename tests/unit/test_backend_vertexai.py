"""The Vertex AI backend, through Google's own client, against a scripted server with Vertex AI's wire form."""

from __future__ import annotations

import base64
import sys
from typing import Any

import pytest
from starlette.responses import JSONResponse

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import UnsupportedFeature
from sgl_jupyter.lang.program import begin_state

from .fake_backend import within
from .fake_server import sse
from .fake_vendor import FakeVendor, event, google_event

pytest.importorskip("google.genai", reason="the package google-genai is not installed, so its backend is not tested")

PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)
PATH = "/v1beta1/projects/a-project/locations/a-place/publishers/google/models/a-model:streamGenerateContent"


def gemini(api: FakeVendor, **options: Any) -> sgl.VertexAI:
    from google.oauth2.credentials import Credentials

    place = {
        "project": "a-project",
        "location": "a-place",
        "http_options": {"base_url": api.url},
        "credentials": Credentials("a-token"),
    }
    return sgl.VertexAI("a-model", **place | options)


@sgl.function
def qa(s: Any, answer: Any) -> None:
    s += sgl.system("S") + sgl.user("Q") + sgl.assistant(answer)


def config_of(api: FakeVendor, **settings: Any) -> dict[str, Any]:
    qa.run(sgl.gen("x", max_tokens=7, **settings), backend=gemini(api)).sync()
    return api.bodies[-1]["generationConfig"]


def test_a_program_runs(api: FakeVendor) -> None:
    state = begin_state(gemini(api))
    state += sgl.system("S") + sgl.user("1") + sgl.assistant("2") + sgl.user("3")
    state += sgl.assistant(sgl.gen("x", max_tokens=7))
    assert state["x"] == "Hello, world!"
    assert api.asked[0].path == PATH
    assert api.asked[0].headers["authorization"] == "Bearer a-token"
    assert api.bodies[0]["systemInstruction"]["parts"] == [{"text": "S"}]
    assert api.bodies[0]["contents"] == [
        {"role": "user", "parts": [{"text": "1"}]},
        {"role": "model", "parts": [{"text": "2"}]},
        {"role": "user", "parts": [{"text": "3"}]},
    ]
    assert api.bodies[0]["generationConfig"] == {"temperature": 1.0, "topP": 1.0, "maxOutputTokens": 7}
    assert state.get_meta_info("x") == {
        "id": "response-1", "finish_reason": {"type": "stop", "matched": None},
        "prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 5,
    }  # fmt: skip
    pieces = [e.text for e in state.log.events if getattr(e, "origin", None) == "generated"]  # type: ignore[union-attr]
    assert pieces == ["Hello", ", wor", "ld!"]


def test_sampling_parameters(api: FakeVendor) -> None:
    config = config_of(
        api, temperature=0.0, top_p=0.5, top_k=5, stop=["\n"], seed=3, frequency_penalty=0.5, presence_penalty=0.25
    )
    assert config == {
        "temperature": 0.0, "topP": 0.5, "topK": 5, "stopSequences": ["\n"], "seed": 3,
        "frequencyPenalty": 0.5, "presencePenalty": 0.25, "maxOutputTokens": 7,
    }  # fmt: skip


def test_a_seed_of_zero_is_a_seed(api: FakeVendor) -> None:
    assert config_of(api, seed=0)["seed"] == 0


def test_a_schema(api: FakeVendor) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    config = config_of(api, json_schema=schema)
    assert (config["responseMimeType"], config["responseJsonSchema"]) == ("application/json", schema)


def test_choices_and_types_by_schema(api: FakeVendor) -> None:
    api.texts = ['{"value":', ' "no"}']
    assert qa.run(sgl.select("x", ["yes", "no"]), backend=gemini(api))["x"] == "no"
    api.texts = ['{"value": 42}']
    assert qa.run(sgl.gen_int("x"), backend=gemini(api))["x"] == "42"


def test_images(api: FakeVendor) -> None:
    state = begin_state(gemini(api))
    state += sgl.user("?" + sgl.image(PNG) + sgl.image("https://example.org/cat.png")) + sgl.assistant(sgl.gen("x"))
    state.sync()
    words, picture, link = api.bodies[0]["contents"][0]["parts"]
    assert words == {"text": "?"}
    assert "image/png" in picture["inlineData"].values()
    assert base64.urlsafe_b64decode(picture["inlineData"]["data"]) == PNG
    assert set(link["fileData"].values()) == {"https://example.org/cat.png", "image/png"}


def test_safety_settings_go_along(api: FakeVendor) -> None:
    settings = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    qa.run(sgl.gen("x"), backend=gemini(api, safety_settings=settings)).sync()
    assert api.bodies[0]["safetySettings"] == settings


def test_sglangs_environment_variables_name_project_and_location(
    api: FakeVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCP_PROJECT_ID", "a-project")
    monkeypatch.setenv("GCP_LOCATION", "a-place")
    qa.run(sgl.gen("x"), backend=gemini(api, project=None, location=None)).sync()
    assert api.asked[0].path == PATH


@pytest.mark.parametrize(
    ("name", "value"),
    [("regex", "a+"), ("min_p", 0.1), ("logit_bias", {5: 1.0}), ("ignore_eos", True), ("return_logprob", True)],
)
def test_what_it_cannot_do_is_an_error_that_names_it(api: FakeVendor, name: str, value: Any) -> None:
    with pytest.raises(UnsupportedFeature, match=f"VertexAI does not support {name}="):
        config_of(api, **{name: value})
    assert not api.bodies


def test_a_later_system_message_is_an_error(api: FakeVendor) -> None:
    state = begin_state(gemini(api))
    state += sgl.user("Q") + sgl.system("S") + sgl.assistant(sgl.gen("x"))
    with pytest.raises(UnsupportedFeature, match="a system message that is not the first message"):
        state.sync()


@pytest.mark.parametrize("finish", ["SAFETY", "RECITATION"])
def test_an_answer_that_is_held_back_is_an_error(api: FakeVendor, finish: str) -> None:
    api.finish = finish
    with pytest.raises(sgl.BackendError, match=f"a-model refused to answer: {finish}"):
        qa.run(sgl.gen("x"), backend=gemini(api)).sync()


def test_a_prompt_that_is_refused_is_an_error(api: FakeVendor) -> None:
    api.respond = lambda body: sse({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}, done=False)
    with pytest.raises(sgl.BackendError, match="a-model refused to answer: PROHIBITED_CONTENT"):
        qa.run(sgl.gen("x"), backend=gemini(api)).sync()


def test_a_refusal_is_told_in_the_servers_words(api: FakeVendor) -> None:
    error = {"error": {"code": 400, "message": "Unknown model", "status": "INVALID_ARGUMENT"}}
    api.respond = lambda body: JSONResponse(error, 400)
    with pytest.raises(sgl.BackendError, match=r"Unknown model \(HTTP 400 from Vertex AI\)") as caught:
        qa.run(sgl.gen("x"), backend=gemini(api)).sync()
    assert caught.value.status == 400


def test_a_stream_that_ends_too_early_is_an_error(api: FakeVendor) -> None:
    api.respond = lambda body: sse(google_event("part"), done=False)
    with pytest.raises(sgl.BackendUnreachable, match="closed the connection before the answer was complete"):
        qa.run(sgl.gen("x"), backend=gemini(api)).sync()


def test_nothing_listening_is_a_connection_error(api: FakeVendor) -> None:
    backend = gemini(api, http_options={"base_url": "http://127.0.0.1:9", "retry_options": {"attempts": 1}})
    with pytest.raises(ConnectionError, match="no connection to Vertex AI"):
        qa.run(sgl.gen("x"), backend=backend).sync()


def test_missing_credentials_are_told(api: FakeVendor) -> None:
    from google.auth.credentials import AnonymousCredentials

    backend = gemini(api, credentials=AnonymousCredentials())
    with pytest.raises(
        sgl.BackendError, match="no credentials for Vertex AI: Anonymous credentials cannot be refreshed"
    ):
        qa.run(sgl.gen("x"), backend=backend).sync()


def test_cancel_closes_the_request(api: FakeVendor) -> None:
    api.respond = lambda body: api.endless(event(google_event("Hel")))
    state = qa.run(sgl.gen("x"), backend=gemini(api), stream=True)
    assert next(state.text_iter("x")) == "Hel"
    state.cancel()
    assert api.left_early.wait(5)
    assert within(5, lambda: state["x"]) == "Hel"


def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.genai", None)
    with pytest.raises(ImportError, match=r"google\.genai is not installed: pip install 'sgl-jupyter\[vertexai\]'"):
        sgl.VertexAI("gemini")
