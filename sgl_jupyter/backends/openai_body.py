"""What a request to a server with OpenAI's routes says: OpenAI's own fields, and those of the server's dialect.

A dialect is data. What it does not name cannot be asked for: nothing is sent in the hope that a server knows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sgl_jupyter.backends.base import SamplingParams
from sgl_jupyter.backends.strict_schema import strict_schema

Fields = dict[str, Any]
Constraints = Mapping[str, Callable[[str], Fields]]
"""For each constraint, by its name in `SamplingParams`, the fields of a request that ask for it."""

LOGPROBS = frozenset({"return_logprob", "top_logprobs_num", "return_text_in_logprobs"})
OWN = LOGPROBS | {
    "max_new_tokens",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "stop",
    "seed",
    "logit_bias",
}
"""The sampling parameters that OpenAI's routes have."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server is asked."""

    extensions: Mapping[str, str] = field(default_factory=dict)
    """Further sampling parameters, with the server's names. They are always sent: a server's defaults are its own."""
    top_k_off: int = -1
    """The value of top_k that leaves all tokens in."""
    lacks: frozenset[str] = frozenset()
    """Parameters of OpenAI's that the server ignores; "echo" and "n" are those of the routes."""
    chat: Constraints = field(default_factory=dict)
    completion: Constraints = field(default_factory=dict)
    leaves_stop: bool = False
    """Whether an answer that ends with a stop string holds it, and what of its token comes after."""
    continuation: Mapping[str, Any] | None = None
    """The fields that have the server go on with the assistant's last message, if it can."""

    def features(self, is_chat_model: bool) -> frozenset[str]:
        """The fields of `SamplingParams` that mean something to the server."""
        constraints = self.chat if is_chat_model else self.completion
        return OWN - self.lacks | self.extensions.keys() | constraints.keys()

    def extra_fields(self, params: SamplingParams, is_chat_model: bool) -> Fields:
        """What a request says beyond OpenAI's own fields."""
        values = {name: getattr(params, name) for name in self.extensions}
        if values.get("top_k") == -1:
            values["top_k"] = self.top_k_off
        fields = {self.extensions[name]: value for name, value in values.items() if value is not None}
        for name, ask in (self.chat if is_chat_model else self.completion).items():
            if (value := getattr(params, name)) is not None:
                fields |= ask(value)
        return fields


def _named(name: str) -> Callable[[str], Fields]:
    return lambda value: {name: value}


def _response_format(schema: str) -> Fields:
    return _json_schema_format(json.loads(schema))


def _strict_response_format(schema: str) -> Fields:
    return _json_schema_format(strict_schema(json.loads(schema)))


def _json_schema_format(schema: Any) -> Fields:
    answer = {"name": "answer", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": answer}}


_SGLANG: Constraints = {"regex": _named("regex"), "ebnf": _named("ebnf")}
_VLLM: Constraints = {
    "regex": lambda regex: {"structured_outputs": {"regex": regex}},
    "ebnf": lambda grammar: {"structured_outputs": {"grammar": grammar}},
    "json_schema": lambda schema: {"structured_outputs": {"json": json.loads(schema)}},
}
_LLAMA_CPP: Constraints = {"ebnf": _named("grammar")}
_SHARED = {name: name for name in ("top_k", "min_p", "repetition_penalty", "ignore_eos", "skip_special_tokens")}

DIALECTS: Mapping[str, Dialect] = {
    "openai": Dialect(chat={"json_schema": _strict_response_format}),
    "sglang": Dialect(
        extensions={
            **_SHARED,
            "stop_token_ids": "stop_token_ids",
            "min_new_tokens": "min_tokens",
            "lora_path": "lora_path",
        },
        chat={**_SGLANG, "json_schema": _response_format},
        completion={**_SGLANG, "json_schema": _named("json_schema")},
        continuation={"continue_final_message": True},
    ),
    "vllm": Dialect(
        extensions={
            **_SHARED,
            "stop_token_ids": "stop_token_ids",
            "min_new_tokens": "min_tokens",
            "spaces_between_special_tokens": "spaces_between_special_tokens",
        },
        chat=_VLLM,
        completion=_VLLM,
        continuation={"continue_final_message": True, "add_generation_prompt": False},
    ),
    "llama.cpp": Dialect(
        extensions={"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"},
        top_k_off=0,
        lacks=frozenset({"n", "echo"}),  # what comes with its echo are the next token's log-probabilities
        chat={
            **_LLAMA_CPP,
            "json_schema": lambda schema: {"response_format": {"type": "json_object", "schema": json.loads(schema)}},
        },
        completion=_LLAMA_CPP,
    ),
    "transformers": Dialect(
        # it makes a repetition penalty of frequency_penalty, and looks at logit_bias on one route only
        lacks=LOGPROBS | {"n", "echo", "presence_penalty", "frequency_penalty", "logit_bias"},
        leaves_stop=True,
    ),
}
"""By the name that `OpenAI(server=...)` takes. kernel_engine speaks SGLang's."""


def own_fields(params: SamplingParams, is_chat_model: bool, omit_defaults: bool) -> dict[str, Any]:
    """The sampling parameters that OpenAI's routes have, by OpenAI's names.

    With `omit_defaults` none is sent that OpenAI's own service takes anyway: its reasoning models refuse to be told.
    """
    fields: dict[str, Any] = {"max_tokens": params.max_new_tokens}
    if params.temperature != 1.0 or not omit_defaults:
        fields["temperature"] = params.temperature
    if params.top_p != 1.0 or not omit_defaults:
        fields["top_p"] = params.top_p
    if params.frequency_penalty:
        fields["frequency_penalty"] = params.frequency_penalty
    if params.presence_penalty:
        fields["presence_penalty"] = params.presence_penalty
    if params.stop:
        fields["stop"] = list(params.stop)
    if params.seed is not None:
        fields["seed"] = params.seed
    if params.logit_bias:
        fields["logit_bias"] = dict(params.logit_bias)
    if params.return_logprob and is_chat_model:
        fields |= {"logprobs": True, "top_logprobs": params.top_logprobs_num or 0}
    elif params.return_logprob:
        fields["logprobs"] = max(params.top_logprobs_num or 0, 1)
    return fields
