"""What the bodies of `/v1/completions` and `/v1/chat/completions` have in common, checked and typed.

A field that does not exist, or holds what it may not, is a `RequestError` whose `param` is the field's name.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError
from ..protocol import MAX_TOP_LOGPROBS, Answer, sample_requests, typed
from ..request import LogprobRequest
from ..sampling_params import SamplingParams
from ..vision.prompt import Prompt
from .settings import Settings

SAMPLING = {
    name: name
    for name in (
        "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty",
        "logit_bias", "n", "stop", "stop_token_ids", "stop_regex", "regex", "ebnf", "json_schema", "ignore_eos",
        "skip_special_tokens", "spaces_between_special_tokens", "no_stop_trim",
    )
} | {"seed": "sampling_seed", "max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens"}  # fmt: skip
"""Fields that say how tokens are chosen, and their names in `SamplingParams`."""
COMMON = {*SAMPLING, "model", "stream", "stream_options", "rid", "priority", "lora_path"}
IGNORED = {
    "user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prediction", "log_metrics",
}  # fmt: skip
"""Fields that change nothing here, whatever they say."""
UNSUPPORTED = {
    "session_params", "custom_logit_processor", "custom_params", "return_hidden_states", "bootstrap_host",
    "bootstrap_port", "bootstrap_room",
}  # fmt: skip
"""Fields of SGLang's that are refused unless they are empty."""
CLAIM = "is not supported by this server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a body says beside its prompt, and the frame of what answers it."""

    id: str
    """Of the answer. The engine's request ids begin with it, so that `/abort_request` takes it."""
    model: str
    created: int
    params: SamplingParams
    priority: int
    lora_path: str | None
    stream_interval: int | None
    """None: the answer is not streamed."""
    include_usage: bool

    def blank_answers(self, prompts: list[Prompt], logprobs: LogprobRequest | None) -> list[Answer]:
        """One for every sample of every prompt, prompt by prompt."""
        several = len(prompts) > 1
        return [
            Answer(request, None)
            for index, prompt in enumerate(prompts)
            for request in sample_requests(
                f"{self.id}_{index}" if several else self.id,
                prompt,
                self.params,
                logprobs=logprobs,
                lora_path=self.lora_path,
                priority=self.priority,
                stream_interval=self.stream_interval,
            )
        ]

    def frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """A whole answer or a chunk of a stream, as `kind` says; in a stream with usage, its place is null until the end."""
        found = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        return found | {"usage": None} if self.include_usage else found


def read_call(body: dict[str, Any], prefix: str, params: SamplingParams, settings: Settings) -> Call:
    """The common fields. The model answers to every name, as SGLang's does, and an adapter to its own."""
    stream = typed("stream", body.get("stream"), bool, False)
    options = typed("stream_options", body.get("stream_options"), dict, {})
    check_names(options, {"include_usage"}, within="stream_options")
    if options and not stream:
        raise RequestError("stream_options needs stream: true.", param="stream_options")
    model = typed("model", body.get("model"), str, "") or settings.model
    adapter = model.rpartition(":")[2]
    return Call(
        id=typed("rid", body.get("rid"), str, "") or f"{prefix}-{uuid.uuid4().hex}",
        model=model,
        created=int(time.time()),
        params=params,
        priority=typed("priority", body.get("priority"), int, 0),
        lora_path=typed("lora_path", body.get("lora_path"), str, "")
        or (adapter if adapter in settings.adapters else None),
        stream_interval=settings.stream_interval if stream else None,
        include_usage=typed("stream_options.include_usage", options.get("include_usage"), bool, False),
    )


def as_object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object.")
    return body


def check_names(given: dict[str, Any], known: Iterable[str], *, within: str | None = None) -> None:
    """Raise `RequestError` for the first name that is not `known`; names of a body's field are reported as `within.name`."""
    for name, value in given.items():
        if name in known or (within is None and name in IGNORED):
            continue
        path = f"{within}.{name}" if within else name
        if within is not None or name not in UNSUPPORTED:
            raise RequestError(f"unknown field `{path}`.", param=path)
        if value not in (None, False, [], {}, ""):
            raise RequestError(f"{path} {CLAIM}.", param=path)


def read_sampling(
    body: dict[str, Any], names: dict[str, str], defaults: dict[str, Any], extra: dict[str, Any] | None = None
) -> SamplingParams:
    """`SamplingParams` from the fields `names`, `defaults` where they are absent or null, and `extra` (native names)."""
    given = {native: body[name] for name, native in names.items() if body.get(name) is not None}
    try:
        return SamplingParams.from_json(defaults | given | (extra or {}))
    except RequestError as error:
        theirs = {native: name for name, native in names.items()}
        theirs |= {native: name for name, native in names.items() if body.get(name) is not None}
        message = str(error)
        for native, name in theirs.items():
            message = message.replace(native, name)
        raise RequestError(message, error.status, theirs.get(error.param or "", error.param)) from None


def read_top(name: str, value: Any) -> int | None:
    """How many alternatives are asked for at each token; None if log-probabilities are not."""
    if value is None:
        return None
    top = typed(name, value, int, 0)
    if not 0 <= top <= MAX_TOP_LOGPROBS:
        raise RequestError(f"{name} must be in [0, {MAX_TOP_LOGPROBS}], got {top}.", param=name)
    return top


def usage(answers: list[Answer], samples: int, *, cache_report: bool) -> dict[str, Any]:
    """Token counts of finished answers, of which each prompt has `samples`; a prompt counts once."""
    outputs = [answer.last for answer in answers if answer.last]
    prompt = sum(output.prompt_tokens for output in outputs[::samples])
    completion = sum(output.completion_tokens for output in outputs)
    cached = sum(output.cached_tokens for output in outputs[::samples])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached} if cache_report else None,
    }


def finish(reason: dict[str, Any], *, called: bool = False) -> dict[str, Any]:
    """A choice's `finish_reason` and SGLang's `matched_stop`: the stop string or token that ended it."""
    kind = "tool_calls" if called and reason["type"] == "stop" else reason["type"]
    return {"finish_reason": kind, "matched_stop": reason.get("matched")}
