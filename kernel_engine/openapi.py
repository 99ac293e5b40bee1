"""The OpenAPI description of the routes, served at `/openapi.json` (https://spec.openapis.org/oas/v3.1.0).

The schema of the sampling parameters is read off `SamplingParams`, so that the two cannot disagree.
"""

from __future__ import annotations

from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from . import __version__
from .openai import chat, completions
from .openai.fields import SAMPLING
from .protocol import FIELDS
from .sampling_params import SamplingParams

STREAM = {"text/event-stream": {"schema": {"type": "string"}}}
TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
FLAG = {"type": ["boolean", "null"]}
OBJECT = {"type": ["object", "null"]}
JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}


def document() -> dict[str, Any]:
    """The whole description."""
    answer = {"type": "object", "required": ["text", "meta_info"]}
    one_or_many = {"oneOf": [answer, {"type": "array", "items": answer}]}
    generate = _operation("Continue a prompt, or several.", one_or_many, body=_generate_body())
    generate["responses"]["200"]["content"] |= STREAM
    abort = {"type": "object", "properties": {"rid": {"type": "string"}, "abort_all": {"type": "boolean"}}}
    paths = {
        "/generate": {"post": generate},
        "/abort_request": {"post": _operation("End requests whose id begins with `rid`.", None, body=abort)},
        "/flush_cache": {"post": _operation("Forget all cached prefixes; 400 while requests are under way.", None)},
        "/health": {"get": _operation("200 once ready, else 503.", None)},
        "/health_generate": {"get": _operation("200 if a token can be generated, else 503.", None)},
        "/get_model_info": {"get": _operation("What is being served.", {"type": "object"})},
        "/get_server_info": {"get": _operation("Settings and state.", {"type": "object"})},
    } | _openai_paths()
    return {"openapi": "3.1.0", "info": {"title": "kernel_engine", "version": __version__}, "paths": paths}


def _openai_paths() -> dict[str, Any]:
    answer = {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"]}
    tokens = {"anyOf": [TOKENS, {"type": "array", "items": TOKENS}]}
    tokenize = _body({"prompt": TEXTS, "add_special_tokens": FLAG, "messages": _messages()}, [])
    detokenize = _body({"tokens": tokens, "skip_special_tokens": FLAG}, ["tokens"])
    complete = _operation("Continue a prompt, or several.", answer, body=_completions_body())
    converse = _operation("Answer a conversation.", answer, body=_chat_body())
    for operation in (complete, converse):
        operation["responses"]["200"]["content"] |= STREAM
    return {
        "/v1/completions": {"post": complete},
        "/v1/chat/completions": {"post": converse},
        "/v1/models": {"get": _operation("The served model and its adapters.", {"type": "object"})},
        "/tokenize": {"post": _operation("The token ids of a text.", {"type": "object"}, body=tokenize)},
        "/detokenize": {"post": _operation("The text of token ids.", {"type": "object"}, body=detokenize)},
    }


def _completions_body() -> dict[str, Any]:
    kinds = {
        "prompt": {"anyOf": [*TEXTS["anyOf"], TOKENS, {"type": "array", "items": TOKENS}]},
        "echo": FLAG,
        "logprobs": {"type": ["integer", "null"], "minimum": 0},
        "best_of": {"type": ["integer", "null"]},
        "suffix": {"type": ["string", "null"]},
    }
    return _body(_common_fields() | kinds, ["prompt"], completions.FIELDS)


def _chat_body() -> dict[str, Any]:
    function = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}, "strict": FLAG},
        "required": ["name"],
        "additionalProperties": False,
    }
    tool = {"type": "object", "properties": {"type": {"const": "function"}, "function": function}}
    formats = ["text", "json_object", "json_schema", "structural_tag"]
    kinds: dict[str, Any] = {
        "messages": _messages(),
        "max_completion_tokens": {"type": ["integer", "null"], "minimum": 0},
        "top_logprobs": {"type": ["integer", "null"], "minimum": 0},
        "response_format": {"type": "object", "properties": {"type": {"enum": formats}}, "required": ["type"]},
        "tools": {"type": "array", "items": tool | {"required": ["type", "function"]}},
        "tool_choice": {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}]},
        "reasoning_effort": {"type": ["string", "null"]},
        "chat_template_kwargs": OBJECT,
    }
    flags = {
        "logprobs", "parallel_tool_calls", "separate_reasoning", "stream_reasoning", "continue_final_message",
    }  # fmt: skip
    return _body(_common_fields() | kinds | dict.fromkeys(flags, FLAG), ["messages"], chat.FIELDS)


def _messages() -> dict[str, Any]:
    text = _part("text", {"type": "string"})
    image = _part("image_url", {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]})
    content = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": [text, image]}}]}
    role = {"enum": ["system", "developer", "user", "assistant", "tool"]}
    message = {"type": "object", "properties": {"role": role, "content": content}, "required": ["role", "content"]}
    return {"type": "array", "items": message, "minItems": 1}


def _part(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """A part of a message, whose content is in the field that is called as its type."""
    return {"type": "object", "properties": {"type": {"const": kind}, kind: content}, "required": ["type", kind]}


def _common_fields() -> dict[str, Any]:
    """Of both OpenAI bodies; the schemas of what `SamplingParams` has are read off it."""
    native = _sampling_params()["properties"]
    return {name: native[field] for name, field in SAMPLING.items()} | {
        "model": {"type": ["string", "null"]},
        "stream": FLAG,
        "stream_options": {"type": "object", "properties": {"include_usage": FLAG}, "additionalProperties": False},
        "rid": {"type": ["string", "null"]},
        "priority": {"type": ["integer", "null"]},
        "lora_path": {"type": ["string", "null"]},
    }


def _body(kinds: dict[str, Any], required: list[str], names: set[str] | None = None) -> dict[str, Any]:
    """An object of the fields `names`, by default all that `kinds` describes."""
    properties = {name: kinds[name] for name in sorted(names or kinds)}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _operation(summary: str, answer: dict[str, Any] | None, body: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {
        "description": "A sentence on what is wrong.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
    success: dict[str, Any] = {"description": "Done."}
    if answer is not None:
        success["content"] = {"application/json": {"schema": answer}}
    operation: dict[str, Any] = {"summary": summary, "responses": {"200": success, "4XX": error, "503": error}}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _generate_body() -> dict[str, Any]:
    """One value for all prompts, or an array with one for each."""
    kinds: dict[str, dict[str, Any]] = {
        "text": {"type": "string"},
        "input_ids": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "sampling_params": _sampling_params(),
        "rid": {"type": "string"},
        "priority": {"type": "integer"},
        "lora_path": {"type": ["string", "null"]},
        "return_logprob": {"type": "boolean"},
        "logprob_start_len": {"type": "integer", "minimum": -1},
        "top_logprobs_num": {"type": "integer", "minimum": 0},
        "token_ids_logprob": {"type": "array", "items": {"type": "integer"}},
        "image_data": {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"type": "string"}}]},
        "stream": {"type": "boolean"},
        "return_text_in_logprobs": {"type": "boolean"},
    }
    single = {"stream", "return_text_in_logprobs"}
    properties = {
        name: kinds[name] if name in single else {"anyOf": [kinds[name], {"type": "array", "items": kinds[name]}]}
        for name in sorted(FIELDS)
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _sampling_params() -> dict[str, Any]:
    hints = get_type_hints(SamplingParams)
    properties = {each.name: _schema(hints[each.name]) for each in fields(SamplingParams)}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _schema(hint: Any) -> dict[str, Any]:
    """The JSON schema of a field's type; null always stands for the default."""
    if get_origin(hint) is tuple:
        return {"type": ["array", "null"], "items": {"type": JSON_TYPES[get_args(hint)[0]]}}
    if get_origin(hint) is dict:
        return {"type": ["object", "null"], "additionalProperties": {"type": "number"}}
    options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return {"type": sorted({JSON_TYPES[option] for option in options} | {"null"})}
