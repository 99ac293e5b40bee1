"""The OpenAPI description of the native routes, served at `/openapi.json` (https://spec.openapis.org/oas/v3.1.0).

The schema of the sampling parameters is read off `SamplingParams`, so that the two cannot disagree.
"""

from __future__ import annotations

from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from . import __version__
from .protocol import FIELDS
from .sampling_params import SamplingParams

JSON_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", NoneType: "null"}


def document() -> dict[str, Any]:
    """The whole description."""
    answer = {"type": "object", "required": ["text", "meta_info"]}
    one_or_many = {"oneOf": [answer, {"type": "array", "items": answer}]}
    generate = _operation("Continue a prompt, or several.", one_or_many, body=_generate_body())
    generate["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    abort = {"type": "object", "properties": {"rid": {"type": "string"}, "abort_all": {"type": "boolean"}}}
    paths = {
        "/generate": {"post": generate},
        "/abort_request": {"post": _operation("End requests whose id begins with `rid`.", None, body=abort)},
        "/flush_cache": {"post": _operation("Forget all cached prefixes; 400 while requests are under way.", None)},
        "/health": {"get": _operation("200 once ready, else 503.", None)},
        "/health_generate": {"get": _operation("200 if a token can be generated, else 503.", None)},
        "/get_model_info": {"get": _operation("What is being served.", {"type": "object"})},
        "/get_server_info": {"get": _operation("Settings and state.", {"type": "object"})},
        "/v1/models": {"get": _operation("The served model, as OpenAI lists it.", {"type": "object"})},
    }
    return {"openapi": "3.1.0", "info": {"title": "kernel_engine", "version": __version__}, "paths": paths}


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
        "return_logprob": {"type": "boolean"},
        "logprob_start_len": {"type": "integer", "minimum": -1},
        "top_logprobs_num": {"type": "integer", "minimum": 0},
        "token_ids_logprob": {"type": "array", "items": {"type": "integer"}},
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
