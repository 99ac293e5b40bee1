"""The OpenAI backend, through OpenAI's own client: what each feature becomes in a request, and each answer in the language."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse

import sgl_jupyter as sgl
from sgl_jupyter.backends.api import together
from sgl_jupyter.backends.base import UnsupportedFeature
from sgl_jupyter.backends.loop_client import LoopClient
from sgl_jupyter.backends.openai_answer import StopCutter
from sgl_jupyter.lang.loop import background_loop
from sgl_jupyter.lang.program import begin_state

from .fake_backend import within
from .fake_server import sse
from .fake_vendor import FakeVendor, event, openai_chunk, openai_frame, vendor

pytest.importorskip("openai", reason="the package openai is not installed, so its backend is not tested")

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
QUESTION = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]


def chat(api: FakeVendor, server: str = "openai", **options: Any) -> sgl.OpenAI:
    return sgl.OpenAI("a-model", base_url=api.url, api_key="key", max_retries=0, server=server, **options)


def text(api: FakeVendor, server: str = "openai", **options: Any) -> sgl.OpenAI:
    return chat(api, server, is_chat_model=False, **options)


@sgl.function
def qa(s: Any, answer: Any) -> None:
    s += sgl.system("S") + sgl.user("Q") + sgl.assistant(answer)


def sent(api: FakeVendor, backend: sgl.OpenAI, **settings: Any) -> dict[str, Any]:
    """The body of the request that a generation with these settings makes, without what all of them say."""
    if backend.is_chat_model:
        qa.run(sgl.gen("x", max_tokens=7, **settings), backend=backend).sync()
    else:
        state = begin_state(backend)
        state += "Q" + sgl.gen("x", max_tokens=7, **settings)
        state.sync()
    always = {"model", "messages", "prompt", "stream", "stream_options", "temperature", "top_p", "max_tokens"}
    return {name: value for name, value in api.bodies[-1].items() if name not in always}


# What is asked


def test_a_chat_model_is_sent_messages(api: FakeVendor) -> None:
    state = qa.run(sgl.gen("x", max_tokens=7), backend=chat(api))
    assert state["x"] == "Hello, world!"
    assert api.asked[0].path == "/chat/completions"
    assert api.asked[0].headers["authorization"] == "Bearer key"
    assert api.bodies == [
        {
            "model": "a-model", "messages": QUESTION, "max_tokens": 7, "temperature": 1.0, "top_p": 1.0,
            "stream": True, "stream_options": {"include_usage": True},
        }
    ]  # fmt: skip


def test_any_other_model_is_sent_text(api: FakeVendor) -> None:
    state = begin_state(text(api))
    state += "Q: 1+1? A:" + sgl.gen("x", max_tokens=7)
    assert state["x"] == "Hello, world!"
    assert api.asked[0].path == "/completions"
    assert api.bodies[0]["prompt"] == "Q: 1+1? A:"
    assert "messages" not in api.bodies[0]


@pytest.mark.parametrize("model", ["gpt-3.5-turbo-instruct", "davinci-002", "babbage-002"])
def test_openais_models_that_continue_text_are_known(model: str) -> None:
    assert sgl.OpenAI(model, api_key="key").is_chat_model is False
    assert sgl.OpenAI("gpt-5", api_key="key").is_chat_model is True


OWN = {
    "stop": (["a", "b"], {"stop": ["a", "b"]}),
    "seed": (3, {"seed": 3}),
    "frequency_penalty": (0.5, {"frequency_penalty": 0.5}),
    "presence_penalty": (0.25, {"presence_penalty": 0.25}),
    "logit_bias": ({5: -100}, {"logit_bias": {"5": -100.0}}),
}


def test_openais_own_parameters(api: FakeVendor) -> None:
    for backend in (chat(api), text(api)):
        for name, (value, body) in OWN.items():
            assert sent(api, backend, **{name: value}) == body


def test_temperature_and_top_p_are_the_programs(api: FakeVendor) -> None:
    sent(api, chat(api), temperature=0.0, top_p=0.5)
    assert {"temperature": 0.0, "top_p": 0.5}.items() <= api.bodies[0].items()


def test_openais_own_service_is_not_sent_defaults_that_its_reasoning_models_refuse(api: FakeVendor) -> None:
    azure = sgl.OpenAI("o5", is_azure=True, azure_endpoint=api.url, api_version="2026-01-01", api_key="key")
    assert qa.run(sgl.gen("x", max_tokens=7), backend=azure)["x"] == "Hello, world!"
    assert api.asked[0].path == "/openai/deployments/o5/chat/completions"
    assert {"temperature", "top_p", "max_tokens"}.isdisjoint(api.bodies[0])
    assert api.bodies[0]["max_completion_tokens"] == 7
    assert sent(api, azure, temperature=0.5) == {"max_completion_tokens": 7}
    assert api.bodies[1]["temperature"] == 0.5


REFUSED = {
    "regex": "a+", "ebnf": 'root ::= "a"', "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 2,
    "stop_token_ids": [1], "stop_regex": "a+", "ignore_eos": True, "logprob_start_len": 0,
}  # fmt: skip


def test_what_openai_cannot_do_is_an_error_that_names_it_and_no_request(api: FakeVendor) -> None:
    for backend in (chat(api), text(api)):
        for name, value in REFUSED.items():
            field = {"min_tokens": "min_new_tokens"}.get(name, name)
            with pytest.raises(UnsupportedFeature, match=f"OpenAI does not support {field}=.*server='openai'"):
                sent(api, backend, **{name: value})
    assert not api.bodies


# Servers with more


EXTENSIONS = {
    "sglang": {
        "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True, "skip_special_tokens": True,
        "stop_token_ids": [1], "min_tokens": 2,
    },
    "vllm": {
        "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True, "skip_special_tokens": True,
        "stop_token_ids": [1], "min_tokens": 2, "spaces_between_special_tokens": True,
    },
    "llama.cpp": {"top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1},
    "transformers": {},
}  # fmt: skip


@pytest.mark.parametrize("server", EXTENSIONS)
def test_a_servers_extensions_go_by_its_names(api: FakeVendor, server: str) -> None:
    asked = {
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "ignore_eos": True,
        "stop_token_ids": [1],
        "min_tokens": 2,
    }
    known = EXTENSIONS[server]
    asked = {name: value for name, value in asked.items() if value in known.values() or name in known}
    assert sent(api, chat(api, server), **asked) == known


@pytest.mark.parametrize("server", EXTENSIONS)
def test_a_servers_extensions_are_sent_at_their_defaults_too_since_its_own_may_differ(
    api: FakeVendor, server: str
) -> None:
    body = sent(api, chat(api, server))
    assert body.keys() == EXTENSIONS[server].keys()
    if "top_k" in body:
        assert body["top_k"] == (0 if server == "llama.cpp" else -1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("presence_penalty", 0.5), ("frequency_penalty", 0.5), ("logit_bias", {5: 1.0}), ("return_logprob", True)],
)
def test_what_transformers_ignores_is_refused(api: FakeVendor, name: str, value: Any) -> None:
    with pytest.raises(UnsupportedFeature, match=f"{name}=.*server='transformers'"):
        sent(api, chat(api, "transformers"), **{name: value})
    assert not api.bodies


GRAMMAR = 'root ::= "a"'
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
CONSTRAINTS = {
    ("openai", "chat", "json_schema"): {"response_format": FORMAT},
    ("sglang", "chat", "json_schema"): {"response_format": FORMAT},
    ("sglang", "text", "json_schema"): {"json_schema": json.dumps(SCHEMA)},
    ("sglang", "chat", "regex"): {"regex": "a+"},
    ("sglang", "text", "regex"): {"regex": "a+"},
    ("sglang", "chat", "ebnf"): {"ebnf": GRAMMAR},
    ("sglang", "text", "ebnf"): {"ebnf": GRAMMAR},
    ("vllm", "chat", "json_schema"): {"structured_outputs": {"json": SCHEMA}},
    ("vllm", "text", "json_schema"): {"structured_outputs": {"json": SCHEMA}},
    ("vllm", "chat", "regex"): {"structured_outputs": {"regex": "a+"}},
    ("vllm", "text", "regex"): {"structured_outputs": {"regex": "a+"}},
    ("vllm", "chat", "ebnf"): {"structured_outputs": {"grammar": GRAMMAR}},
    ("vllm", "text", "ebnf"): {"structured_outputs": {"grammar": GRAMMAR}},
    ("llama.cpp", "chat", "json_schema"): {"response_format": {"type": "json_object", "schema": SCHEMA}},
    ("llama.cpp", "chat", "ebnf"): {"grammar": GRAMMAR},
    ("llama.cpp", "text", "ebnf"): {"grammar": GRAMMAR},
}
VALUES = {"json_schema": SCHEMA, "regex": "a+", "ebnf": GRAMMAR}


@pytest.mark.parametrize("kind", [chat, text])
@pytest.mark.parametrize("server", ["openai", *EXTENSIONS])
def test_constraints(api: FakeVendor, server: str, kind: Any) -> None:
    backend = kind(api, server)
    for constraint, value in VALUES.items():
        if (expected := CONSTRAINTS.get((server, kind.__name__, constraint))) is None:
            with pytest.raises(UnsupportedFeature, match=constraint):
                sent(api, backend, **{constraint: value})
        else:
            assert expected.items() <= sent(api, backend, **{constraint: value}).items()


def test_a_schema_is_narrowed_to_what_openais_own_service_takes(api: FakeVendor) -> None:
    schema = {
        "type": "object",
        "properties": {
            "default": {"type": "string"},
            "pets": {"type": "array", "items": {"$ref": "#/$defs/Pet"}, "default": []},
            "sizes": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "required": ["default"],
        "$defs": {"Pet": {"anyOf": [{"type": "object", "properties": {"name": {"type": "string"}}}, {"type": "null"}]}},
    }
    pet = {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": False}
    assert sent(api, chat(api), json_schema=schema)["response_format"]["json_schema"]["schema"] == {
        "type": "object",
        "properties": {
            "default": {"type": "string"},
            "pets": {"type": "array", "items": {"$ref": "#/$defs/Pet"}},
            "sizes": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
        "required": ["default", "pets", "sizes"],
        "additionalProperties": False,
        "$defs": {"Pet": {"anyOf": [pet | {"required": ["name"]}, {"type": "null"}]}},
    }
    sglang = sent(api, chat(api, "sglang"), json_schema=schema)
    assert sglang["response_format"]["json_schema"]["schema"] == schema


def test_extra_body_goes_along_with_every_request(api: FakeVendor) -> None:
    assert sent(api, chat(api, extra_body={"chat_template_kwargs": {"enable_thinking": False}})) == {
        "chat_template_kwargs": {"enable_thinking": False}
    }


def test_an_unknown_server_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="server must be one of openai, sglang, vllm, llama"):
        sgl.OpenAI("m", api_key="key", server="ollama")


# The conversation


def test_a_begun_message_cannot_be_continued_by_openai(api: FakeVendor) -> None:
    with pytest.raises(UnsupportedFeature, match="gen must be right after assistant_begin"):
        qa.run("The answer is" + sgl.gen("x"), backend=chat(api)).sync()
    assert not api.bodies


@pytest.mark.parametrize(
    ("server", "fields"),
    [
        ("sglang", {"continue_final_message": True}),
        ("vllm", {"continue_final_message": True, "add_generation_prompt": False}),
    ],
)
def test_a_begun_message_is_continued_where_the_server_can(
    api: FakeVendor, server: str, fields: dict[str, Any]
) -> None:
    qa.run("The answer is" + sgl.gen("x"), backend=chat(api, server)).sync()
    assert api.bodies[0]["messages"] == [*QUESTION, {"role": "assistant", "content": "The answer is"}]
    assert fields.items() <= api.bodies[0].items()


def test_a_whole_turn_in_one_call(api: FakeVendor) -> None:
    @sgl.function(num_api_spec_tokens=64)
    def character(s: Any) -> None:
        s += sgl.user("A character?")
        s += sgl.assistant("Name:" + sgl.gen("name", stop="\n") + "\nJob:" + sgl.gen("job", stop="\n"))

    api.texts = ["Name: Ada\nJob: ", "mathematician\n"]
    state = character.run(backend=chat(api))
    assert (state["name"], state["job"]) == (" Ada", " mathematician")
    assert len(api.bodies) == 1
    assert api.bodies[0]["max_tokens"] == 64


def test_gen_outside_of_an_assistant_message_is_an_error(api: FakeVendor) -> None:
    for expr in (sgl.gen("x"), sgl.user("Q:" + sgl.gen("x"))):
        state = begin_state(chat(api))
        state += expr
        with pytest.raises(UnsupportedFeature, match=r"gen outside of an assistant message: write assistant\(gen"):
            state.sync()


def test_text_that_would_not_reach_a_chat_model_is_an_error(api: FakeVendor) -> None:
    state = begin_state(chat(api))
    state += "\n" + sgl.user("Q") + "Think first." + sgl.assistant(sgl.gen("x"))
    with pytest.raises(UnsupportedFeature, match="text outside of messages"):
        state.sync()
    assert not api.bodies


def test_a_conversation_goes_on(api: FakeVendor) -> None:
    state = begin_state(chat(api))
    state += sgl.user("1") + sgl.assistant(sgl.gen("x")) + sgl.user("2") + sgl.assistant(sgl.gen("y"))
    state.sync()
    assert api.bodies[1]["messages"] == [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "Hello, world!"},
        {"role": "user", "content": "2"},
    ]


PNG = b"\x89PNG\r\n\x1a\n" + bytes(32)


def test_images_are_parts_of_a_message(api: FakeVendor) -> None:
    state = begin_state(chat(api))
    state += sgl.user("What is this?" + sgl.image(PNG)) + sgl.assistant(sgl.gen("x"))
    state.sync()
    words, picture = api.bodies[0]["messages"][0]["content"]
    assert words == {"type": "text", "text": "What is this?"}
    assert picture["type"] == "image_url"
    assert picture["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")


def test_a_model_that_continues_text_sees_no_images(api: FakeVendor) -> None:
    state = begin_state(text(api))
    state += sgl.image(PNG) + sgl.gen("x")
    with pytest.raises(UnsupportedFeature, match="OpenAI does not support images"):
        state.sync()


# Choices and types


def test_a_chat_model_is_left_no_other_answer_than_the_choices(api: FakeVendor) -> None:
    api.texts = ['{"value": ', '"no"}']
    state = qa.run(sgl.select("x", ["yes", "no"]), backend=chat(api))
    assert state["x"] == "no"
    assert state.text().endswith("no\n")
    schema = api.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"value": {"type": "string", "enum": ["yes", "no"]}}
    assert api.bodies[0]["temperature"] == 0.0


@pytest.mark.parametrize(
    ("server", "field", "constraint"),
    [
        ("sglang", "regex", r"yes|no \(really\)"),
        ("vllm", "structured_outputs", {"regex": r"yes|no \(really\)"}),
        ("llama.cpp", "grammar", 'root ::= "yes" | "no (really)"'),
    ],
)
def test_choices_by_the_servers_own_constraint(api: FakeVendor, server: str, field: str, constraint: Any) -> None:
    api.texts = ["no ", "(really)"]
    assert qa.run(sgl.select("x", ["yes", "no (really)"]), backend=chat(api, server))["x"] == "no (really)"
    assert api.bodies[0][field] == constraint


def test_openais_own_service_chooses_at_the_temperature_that_all_its_models_take(api: FakeVendor) -> None:
    azure = sgl.OpenAI("o5", is_azure=True, azure_endpoint=api.url, api_version="2026-01-01", api_key="key")
    api.texts = ['{"value": "no"}']
    assert qa.run(sgl.select("x", ["yes", "no"]), backend=azure)["x"] == "no"
    assert "temperature" not in api.bodies[0]


def test_an_answer_that_is_no_choice_is_an_error(api: FakeVendor) -> None:
    with pytest.raises(sgl.BackendError, match="'Hello, world!', which is none of the choices"):
        qa.run(sgl.select("x", ["yes", "no"]), backend=chat(api, "sglang")).sync()
    with pytest.raises(sgl.BackendError, match="'Hello, world!', where a value was asked for"):
        qa.run(sgl.select("x", ["yes", "no"]), backend=chat(api)).sync()


@pytest.mark.parametrize("method", [sgl.greedy_token_selection, sgl.unconditional_likelihood_normalized])
def test_methods_that_compare_probabilities_are_refused_where_there_are_none(api: FakeVendor, method: Any) -> None:
    with pytest.raises(UnsupportedFeature, match=f"{method}, which compares log-probabilities"):
        qa.run(sgl.select("x", ["yes", "no"], choices_method=method), backend=chat(api)).sync()


def echo(body: dict[str, Any]) -> JSONResponse:
    """Words as tokens, each the likelier the shorter it is; and one more token that is generated."""
    tokens = [piece for word in body["prompt"].split(" ") for piece in (" ", word) if piece][1:]
    logprobs: list[float | None] = [None, *(-len(token) / 10 for token in tokens[1:]), -0.5]
    choice = {
        "index": 0, "text": body["prompt"] + "!", "finish_reason": "length",
        "logprobs": {"tokens": [*tokens, "!"], "token_logprobs": logprobs, "top_logprobs": None, "text_offset": []},
    }  # fmt: skip
    usage = {"prompt_tokens": len(tokens), "completion_tokens": 1, "total_tokens": len(tokens) + 1}
    return JSONResponse(openai_frame("text_completion", [choice]) | {"usage": usage})


def test_choices_of_a_model_that_continues_text_are_scored_by_their_own_tokens(api: FakeVendor) -> None:
    api.respond = echo
    state = begin_state(text(api))
    state += "I need a" + sgl.select("x", [" calculator", " pen"], choices_method=sgl.greedy_token_selection)
    assert state["x"] == " pen"
    meta_info = state.get_meta_info("x")
    assert meta_info is not None
    assert [[token for *_, token in tokens] for tokens in meta_info["input_token_logprobs"]] == [
        [" ", "calculator"],
        [" ", "pen"],
    ]
    assert meta_info["normalized_prompt_logprobs"] == pytest.approx([-0.55, -0.2])
    assert {body["prompt"] for body in api.bodies} == {"I need a", "I need a calculator", "I need a pen"}
    assert all(body["echo"] and body["max_tokens"] == 1 for body in api.bodies)


def test_a_server_without_echo_is_no_silent_guess(api: FakeVendor) -> None:
    state = begin_state(text(api))
    state += "I need a" + sgl.select("x", [" calculator", " pen"])
    with pytest.raises(sgl.BackendError, match="tells no log-probabilities of a prompt"):
        state.sync()


@pytest.mark.parametrize(
    ("dtype", "kind", "value", "literal"),
    [
        (int, "integer", 42, "42"),
        (float, "number", 2.5, "2.5"),
        (bool, "boolean", True, "True"),
        (str, "string", "a\nb", '"a\\nb"'),
    ],
)
def test_types_by_json_schema(api: FakeVendor, dtype: type, kind: str, value: Any, literal: str) -> None:
    api.texts = [json.dumps({"value": value})]
    state = qa.run(sgl.gen("x", dtype=dtype, stop="2"), backend=chat(api))
    assert state["x"] == literal
    (form,) = [body["response_format"] for body in api.bodies if "response_format" in body]
    assert form["json_schema"]["schema"]["properties"] == {"value": {"type": kind}}
    assert "stop" not in api.bodies[-1]


def test_types_by_regex_where_the_server_takes_one(api: FakeVendor) -> None:
    assert sent(api, chat(api, "sglang"), dtype=int)["regex"] == r"[-+]?[0-9]+[ \n]*"


# What is answered


def test_text_streams_and_its_meta_info_has_sglangs_names(api: FakeVendor) -> None:
    backend = chat(api)
    state = qa.run(sgl.gen("x"), backend=backend)
    assert state.get_meta_info("x") == {
        "id": "answer-1", "finish_reason": {"type": "stop", "matched": None},
        "prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 5,
    }  # fmt: skip
    pieces = [e.text for e in state.log.events if getattr(e, "origin", None) == "generated"]  # type: ignore[union-attr]
    assert pieces == ["Hello", ", wor", "ld!"]
    assert (backend.token_usage.prompt_tokens, backend.token_usage.completion_tokens) == (9, 4)
    backend.token_usage.reset()
    assert backend.token_usage.prompt_tokens == 0


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("length", {"type": "length", "length": 4}), ("content_filter", {"type": "content_filter"})],
)
def test_why_an_answer_ended(api: FakeVendor, finish: str, reason: dict[str, Any]) -> None:
    api.finish = finish
    meta_info = qa.run(sgl.gen("x"), backend=chat(api)).get_meta_info("x")
    assert meta_info is not None
    assert meta_info["finish_reason"] == reason


def test_what_matched_is_told_where_the_server_tells_it(api: FakeVendor) -> None:
    last = openai_chunk(True, "")
    last["choices"][0] |= {"finish_reason": "stop", "matched_stop": "\n"}
    api.respond = lambda body: sse(openai_chunk(True, "a"), last)
    meta_info = qa.run(sgl.gen("x"), backend=chat(api)).get_meta_info("x")
    assert meta_info is not None
    assert meta_info["finish_reason"] == {"type": "stop", "matched": "\n"}


def test_samples(api: FakeVendor) -> None:
    backend = chat(api)
    state = qa.run(sgl.gen("x", n=3), backend=backend)
    assert state["x"] == ["Hello, world!"] * 3
    assert api.bodies[0]["n"] == 3
    assert backend.token_usage.completion_tokens == 4
    meta_info = state.get_meta_info("x")
    assert meta_info is not None
    assert meta_info["completion_tokens"] == 4


def test_samples_of_a_server_that_gives_one_answer_are_so_many_requests(api: FakeVendor) -> None:
    state = qa.run(sgl.gen("x", n=3, seed=5), backend=chat(api, "transformers"))
    assert state["x"] == ["Hello, world!"] * 3
    assert sorted(body["seed"] for body in api.bodies) == [5, 6, 7]


def test_a_server_that_gives_too_few_samples_is_an_error(api: FakeVendor) -> None:
    api.respond = lambda body: api.openai({}, is_chat=True)
    with pytest.raises(sgl.BackendError, match="did not give 3 answers"):
        qa.run(sgl.gen("x", n=3), backend=chat(api)).sync()


def test_log_probabilities_of_a_chat_model(api: FakeVendor) -> None:
    entry = {"token": "a", "logprob": -0.5, "bytes": [97]}
    entry["top_logprobs"] = [dict(entry), {"token": "b", "logprob": -1.5, "bytes": [98]}]
    chunk = openai_chunk(True, "a", finish="length", logprobs={"content": [entry], "refusal": None})
    api.respond = lambda body: sse(chunk)
    state = qa.run(sgl.gen("x", return_logprob=True, top_logprobs_num=2), backend=chat(api))
    meta_info = state.get_meta_info("x")
    assert meta_info is not None
    assert meta_info["output_token_logprobs"] == [(-0.5, -1, "a")]
    assert meta_info["output_top_logprobs"] == [[(-0.5, -1, "a"), (-1.5, -1, "b")]]
    assert {"logprobs": True, "top_logprobs": 2}.items() <= api.bodies[0].items()


def test_log_probabilities_of_a_model_that_continues_text(api: FakeVendor) -> None:
    logprobs = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": [{"a": -0.5, "b": -1.5}], "text_offset": [0]}
    api.respond = lambda body: sse(openai_chunk(False, "a", finish="length", logprobs=logprobs))
    state = begin_state(text(api))
    state += "Q" + sgl.gen("x", return_logprob=True, top_logprobs_num=2)
    meta_info = state.get_meta_info("x")
    assert meta_info is not None
    assert meta_info["output_token_logprobs"] == [(-0.5, -1, "a")]
    assert meta_info["output_top_logprobs"] == [[(-0.5, -1, "a"), (-1.5, -1, "b")]]
    assert api.bodies[0]["logprobs"] == 2


def test_reasoning_that_the_server_keeps_apart_is_in_the_meta_info(api: FakeVendor) -> None:
    thought = openai_chunk(True, "")
    thought["choices"][0]["delta"] = {"reasoning_content": "hm"}
    api.respond = lambda body: sse(thought, openai_chunk(True, "yes", finish="stop"))
    state = qa.run(sgl.gen("x"), backend=chat(api))
    assert state["x"] == "yes"
    assert state.get_meta_info("x")["reasoning_content"] == "hm"  # type: ignore[index]


def test_a_stop_string_that_a_server_leaves_in_the_text_is_cut_off(api: FakeVendor) -> None:
    api.texts = ["one", " E", "N", "D two"]
    assert qa.run(sgl.gen("x", stop=["END", "xyz"]), backend=chat(api, "transformers"))["x"] == "one "
    assert qa.run(sgl.gen("x", stop=["ENDE"]), backend=chat(api, "transformers"))["x"] == "one END two"


@pytest.mark.parametrize("pieces", [["a END b"], list("a END b"), ["a E", "ND", " b"]])
def test_a_stop_string_is_found_however_it_arrives(pieces: list[str]) -> None:
    cutter = StopCutter(["END", "EN D"])
    told = [cutter.feed(piece) for piece in pieces]
    assert "".join(told) + cutter.rest() == "a "


# Failures


@pytest.mark.parametrize("n", [1, 2], ids=["stream", "whole"])
@pytest.mark.parametrize(
    ("response", "message"),
    [
        (JSONResponse({"error": {"message": "no such model", "type": "x", "param": None, "code": None}}, 404), "no such model"),
        (JSONResponse({"detail": "Unexpected fields"}, 422), "Unexpected fields"),
        (JSONResponse({"error": {"message": "bad key"}}, 401), "bad key; give the key as api_key="),
        (PlainTextResponse("Internal Server Error", 500), "Internal Server Error"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_the_servers_words(api: FakeVendor, response: Any, message: str, n: int) -> None:
    api.respond = lambda body: response
    with pytest.raises(sgl.BackendError, match=f"{message}.* \\(HTTP {response.status_code} from {api.url}") as caught:
        qa.run(sgl.gen("x", n=n), backend=chat(api)).sync()
    assert caught.value.status == response.status_code


def test_an_error_in_a_stream_is_raised_with_its_message(api: FakeVendor) -> None:
    api.respond = lambda body: sse(openai_chunk(True, "part"), {"error": {"message": "out of memory"}})
    state = qa.run(sgl.gen("x"), backend=chat(api))
    with pytest.raises(sgl.BackendError, match="out of memory"):
        state.sync()
    assert repr(state).endswith("part")


@pytest.mark.parametrize("done", [True, False])
def test_a_stream_that_ends_too_early_is_an_error(api: FakeVendor, done: bool) -> None:
    api.respond = lambda body: sse(openai_chunk(True, "part"), done=done)
    with pytest.raises(sgl.BackendUnreachable, match="closed the connection before the answer was complete"):
        qa.run(sgl.gen("x"), backend=chat(api)).sync()


def test_what_is_not_json_is_an_error(api: FakeVendor) -> None:
    api.respond = lambda body: sse(b"data: <html>\n\n")
    with pytest.raises(sgl.BackendError, match="did not answer with JSON, but with '<html>'"):
        qa.run(sgl.gen("x"), backend=chat(api)).sync()


def test_a_refusal_of_the_models_is_an_error(api: FakeVendor) -> None:
    refusal = openai_chunk(True, "")
    refusal["choices"][0]["delta"] = {"refusal": "I cannot help with that."}
    api.respond = lambda body: sse(refusal, openai_chunk(True, "", finish="stop"))
    with pytest.raises(sgl.BackendError, match=r"a-model refused to answer: I cannot help with that\."):
        qa.run(sgl.gen("x"), backend=chat(api)).sync()


def test_nothing_listening_is_a_connection_error_that_names_the_url() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    backend = sgl.OpenAI("m", base_url=url, api_key="key", max_retries=0)
    with pytest.raises(ConnectionError, match=f"no connection to {url}"):
        qa.run(sgl.gen("x"), backend=backend).sync()


def test_a_server_that_dies_while_it_answers_is_an_error_and_no_hang() -> None:
    with vendor() as api:
        api.respond = lambda body: api.endless(event(openai_chunk(True, "Hel")))
        state = qa.run(sgl.gen("x"), backend=chat(api), stream=True)
        assert next(state.text_iter("x")) == "Hel"
    with pytest.raises(sgl.BackendUnreachable):
        within(10, lambda: state["x"])


def test_cancel_closes_the_request(api: FakeVendor) -> None:
    api.respond = lambda body: api.endless(event(openai_chunk(True, "Hel")))
    state = qa.run(sgl.gen("x"), backend=chat(api), stream=True)
    assert next(state.text_iter("x")) == "Hel"
    state.cancel()
    assert api.left_early.wait(5)
    assert within(5, lambda: state["x"]) == "Hel"


def test_a_server_that_takes_too_long_is_unreachable(api: FakeVendor) -> None:
    api.respond = lambda body: api.endless(b": nothing yet\n\n")
    with pytest.raises(sgl.BackendUnreachable, match=r"did not answer in time|ReadTimeout"):
        qa.run(sgl.gen("x"), backend=chat(api, timeout=0.3)).sync()


def test_the_key_is_shown_nowhere(api: FakeVendor) -> None:
    assert "key" not in repr(chat(api))


def test_each_loop_has_a_client_of_its_own_and_closes_it() -> None:
    class Client:
        closed_on: Any = None

        async def close(self) -> None:
            self.closed_on = asyncio.get_running_loop()

    async def use(clients: LoopClient) -> Any:
        assert clients.here() is clients.here()
        return clients.here()

    first = Client()
    clients = LoopClient(Client, Client.close, first)
    with asyncio.Runner() as other:
        assert other.run(use(clients)) is first
    loop = background_loop()
    second = asyncio.run_coroutine_threadsafe(use(clients), loop).result(5)
    assert second is not first
    del clients
    gc.collect()
    assert second.closed_on is loop


def test_crusoe_is_openais_client_with_a_key_of_its_own(api: FakeVendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not for others")
    monkeypatch.delenv("CRUSOE_API_KEY", raising=False)
    with pytest.raises(ValueError, match="a key for Crusoe is needed"):
        sgl.Crusoe("a-model")
    monkeypatch.setenv("CRUSOE_API_KEY", "key")
    assert qa.run(sgl.gen("x"), backend=sgl.Crusoe("a-model", base_url=api.url))["x"] == "Hello, world!"
    assert api.asked[0].headers["authorization"] == "Bearer key"


def test_a_missing_package_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"openai is not installed: pip install 'sgl-jupyter\[openai\]'"):
        sgl.OpenAI("gpt-5")


def test_when_one_of_several_requests_fails_the_others_have_ended() -> None:
    ended: list[str] = []

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)  # a connection takes a moment to close
            ended.append("closed")

    async def failing() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        asyncio.run(together([waiting(), failing(), waiting()]))
    assert ended == ["closed", "closed"]
