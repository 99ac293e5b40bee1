"""SGLang's `/generate` body, checked and typed, and the JSON objects that answer it.

Source: SGLang's native HTTP API. A body names one prompt or a list of them; every other field is one value for all prompts or
a list with one value each. `n` samples of a prompt are as many requests, which share its cached prefix.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerFast

from .errors import RequestError
from .request import LogprobEntry, LogprobRequest, Output, Request
from .sampling_params import SamplingParams
from .vision.pictures import Shown
from .vision.prompt import Prompt

FIELDS = {
    "text", "input_ids", "sampling_params", "rid", "stream", "priority", "return_logprob", "logprob_start_len",
    "top_logprobs_num", "token_ids_logprob", "return_text_in_logprobs", "lora_path", "image_data",
}  # fmt: skip
IGNORED = {"log_metrics", "modalities", "return_bytes", "background", "custom_labels", "routing_key", "session_id"}
UNSUPPORTED = {
    "input_embeds", "audio_data", "video_data", "session_params", "custom_logit_processor",
    "return_hidden_states", "bootstrap_host", "bootstrap_port", "bootstrap_room", "return_prompt_token_ids",
}  # fmt: skip
MAX_TOP_LOGPROBS = 1000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GenerateBody:
    """The requests that a body stands for, prompt by prompt and sample by sample."""

    requests: list[Request]
    stream: bool
    batch: bool
    """Whether the answer is a list."""
    text_in_logprobs: bool


def images_in(body: Any) -> list[str]:
    """All that a `/generate` body names in `image_data`; raises `RequestError` where that holds anything but strings."""
    data = body.get("image_data") if isinstance(body, dict) else None
    given = data if isinstance(data, list) else [data]
    flat = [name for each in given for name in (each if isinstance(each, list) else [each]) if name is not None]
    if not all(isinstance(name, str) for name in flat):
        message = "image_data must be a string (URL, data URI, base64), an array of such, or an array of such arrays."
        raise RequestError(message, param="image_data")
    return flat


def read_generate(
    body: Any, tokenizer: PreTrainedTokenizerFast, stream_interval: int, shown: Shown | None = None
) -> GenerateBody:
    """Read a `/generate` body, whose images are in `shown`; raises `RequestError` for the first thing that is wrong with it."""
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object.")
    _check_names(body)
    shown = shown or Shown()
    prompts, batch = _prompts(body, tokenizer)
    stream = _one(body, "stream", bool, False)
    requests = []
    for index, ids in enumerate(prompts):
        one = {name: _pick(body, name, index, len(prompts), batch) for name in _LISTABLE}
        params = SamplingParams.from_json(one["sampling_params"])
        rid = typed("rid", one["rid"], str, "") or uuid.uuid4().hex
        if batch and isinstance(body.get("rid"), str):
            rid = f"{rid}_{index}"
        requests += sample_requests(
            rid,
            shown.prompt(ids, _images(body, index, len(prompts), batch)),
            params,
            logprobs=_logprobs(one),
            lora_path=typed("lora_path", one["lora_path"], str, "") or None,
            priority=typed("priority", one["priority"], int, 0),
            stream_interval=(params.stream_interval or stream_interval) if stream else None,
        )
    several = batch or len(requests) > 1
    return GenerateBody(requests, stream, several, _one(body, "return_text_in_logprobs", bool, False))


_LISTABLE = (
    "sampling_params", "rid", "priority", "return_logprob", "logprob_start_len", "top_logprobs_num", "token_ids_logprob",
    "lora_path",
)  # fmt: skip


def sample_requests(rid: str, prompt: Prompt, params: SamplingParams, **options: Any) -> list[Request]:
    """The requests that the `n` samples of one prompt are; `options` are `Request`'s."""
    rids = [rid] if params.n == 1 else [f"{rid}_{sample}" for sample in range(params.n)]
    return [
        Request(rid=own, prompt=prompt, params=_for_sample(params, sample), **options)
        for sample, own in enumerate(rids)
    ]


def _for_sample(params: SamplingParams, sample: int) -> SamplingParams:
    """The samples of a seeded request each have a seed of their own, the first one the request's."""
    if params.sampling_seed is None or sample == 0:
        return params
    return replace(params, sampling_seed=params.sampling_seed + sample)


def _check_names(body: dict[str, Any]) -> None:
    for name, value in body.items():
        if name in FIELDS or name in IGNORED:
            continue
        if name not in UNSUPPORTED:
            raise RequestError(f"unknown field `{name}`, expected one of {', '.join(sorted(FIELDS))}.")
        if value not in (None, False, [], ""):
            raise RequestError(f"{name} is not supported by this engine and model.")


def _prompts(body: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> tuple[list[list[int]], bool]:
    """Token ids of every prompt, and whether the body is a batch. Ids take precedence over text."""
    ids, text = body.get("input_ids"), body.get("text")
    if ids is not None:
        batch = isinstance(ids, list) and bool(ids) and isinstance(ids[0], list)
        prompts = ids if batch else [ids]
        for prompt in prompts:
            if not isinstance(prompt, list) or not all(type(token) is int for token in prompt):
                raise RequestError("input_ids must be an array of integers, or an array of such arrays.")
        return prompts, batch
    if text is None:
        raise RequestError("Either text or input_ids should be provided.")
    batch = isinstance(text, list)
    texts = text if isinstance(text, list) else [text]
    if not texts or not all(isinstance(each, str) for each in texts):
        raise RequestError("text must be a string or a non-empty array of strings.")
    if not all(texts):
        raise RequestError("text must not be empty.")
    try:
        found: list[list[int]] = tokenizer(texts)["input_ids"]  # pyright: ignore[reportAssignmentType]
        return [_begun_once(ids, text, tokenizer) for ids, text in zip(found, texts, strict=True)], batch
    except (UnicodeEncodeError, TypeError):
        raise RequestError("text is not valid Unicode: it holds a lone surrogate.") from None


def _begun_once(ids: list[int], text: str, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The token that begins a text, which most tokenizers add, comes once where a chat template has spelled it out already."""
    begin = tokenizer.bos_token_id
    spelled = begin is not None and text.startswith(str(tokenizer.bos_token))
    return ids[1:] if spelled and ids[:2] == [begin, begin] else ids


def _images(body: dict[str, Any], index: int, count: int, batch: bool) -> list[str]:
    """What prompt `index` shows: its entry of an array with one for each prompt, or what is given to all of them."""
    data = body.get("image_data")
    if batch and isinstance(data, list):
        if len(data) != count:
            raise RequestError(f"The length of image_data ({len(data)}) should be equal to the batch size ({count}).")
        data = data[index]
    return images_in({"image_data": data})


def _pick(body: dict[str, Any], name: str, index: int, count: int, batch: bool) -> Any:
    """The value of a field for prompt `index`: its own in a batch of values, else the one for all."""
    value = body.get(name)
    per_prompt = isinstance(value, list)
    if name == "token_ids_logprob":
        per_prompt = isinstance(value, list) and any(isinstance(each, list) for each in value)
    if not per_prompt or not isinstance(value, list):
        return value
    if not batch:
        raise RequestError(f"{name} is an array, but there is one prompt.")
    if len(value) != count:
        raise RequestError(f"The length of {name} ({len(value)}) should be equal to the batch size ({count}).")
    return value[index]


def _logprobs(one: dict[str, Any]) -> LogprobRequest | None:
    if not typed("return_logprob", one["return_logprob"], bool, False):
        return None
    start = typed("logprob_start_len", one["logprob_start_len"], int, -1)
    top = typed("top_logprobs_num", one["top_logprobs_num"], int, 0)
    ids = typed("token_ids_logprob", one["token_ids_logprob"], list, [])
    if start < -1:
        raise RequestError(f"logprob_start_len must be at least -1, got {start}.")
    if not 0 <= top <= MAX_TOP_LOGPROBS:
        raise RequestError(f"top_logprobs_num must be in [0, {MAX_TOP_LOGPROBS}], got {top}.")
    if not all(type(token) is int for token in ids):
        raise RequestError("token_ids_logprob must be an array of integers.")
    return LogprobRequest(start, top, tuple(ids))


def _one(body: dict[str, Any], name: str, kind: type[T], default: T) -> T:
    return typed(name, body.get(name), kind, default)


def typed(name: str, value: Any, kind: type[T], default: T) -> T:
    """`value`, or `default` if it is null; raises `RequestError` if it is of another kind."""
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {bool: "a boolean", int: "an integer", str: "a string", list: "an array", dict: "an object"}
        raise RequestError(f"{name} must be {names[kind]}, got {value!r:.40}.", param=name)
    return value


@dataclass(slots=True)
class Answer:
    """The JSON object for one request, built from its outputs."""

    request: Request
    decode: Callable[[int], str] | None
    """Gives a token's text, if log-probabilities should carry it."""
    started: float = field(default_factory=time.monotonic)
    text: str = ""
    output_ids: list[int] = field(default_factory=list)
    input_logprobs: list[LogprobEntry] = field(default_factory=list)
    output_logprobs: list[LogprobEntry] = field(default_factory=list)
    last: Output | None = None

    def add(self, output: Output) -> None:
        self.text += output.text
        self.output_ids += output.token_ids
        self.input_logprobs += output.input_logprobs
        self.output_logprobs += output.output_logprobs
        self.last = output

    @property
    def error(self) -> RequestError | None:
        """Set if the request failed; an abort that its sender wanted is no failure."""
        reason = (self.last.finish_reason if self.last else None) or {}
        if reason.get("type") != "abort" or reason["status_code"] is None:
            return None
        return RequestError(reason["message"], reason["status_code"])

    def json(self) -> dict[str, Any]:
        """The answer so far: text and log-probabilities are cumulative, as SGLang's are."""
        return self._json(self.text, self.output_ids, self.input_logprobs, self.output_logprobs)

    def news(self) -> dict[str, Any]:
        """The same with only what the last output added of text, tokens and log-probabilities."""
        assert self.last is not None
        return self._json(self.last.text, self.last.token_ids, self.last.input_logprobs, self.last.output_logprobs)

    def _json(
        self, text: str, ids: list[int], input_logprobs: list[LogprobEntry], output_logprobs: list[LogprobEntry]
    ) -> dict[str, Any]:
        assert self.last is not None
        meta: dict[str, Any] = {
            "id": self.request.rid,
            "finish_reason": self.last.finish_reason,
            "prompt_tokens": self.last.prompt_tokens,
            "completion_tokens": self.last.completion_tokens,
            "cached_tokens": self.last.cached_tokens,
            "num_retractions": self.last.retractions,
            "weight_version": "default",
        } | self.last.speculation
        if self.last.forced:
            meta["forced_spans"] = self.last.forced
        if self.last.finish_reason is not None:
            meta["e2e_latency"] = time.monotonic() - self.started
        if wanted := self.request.logprobs:
            meta |= self._logprobs("input", input_logprobs, wanted)
            meta |= self._logprobs("output", output_logprobs, wanted)
            meta["output_token_logprobs_length"] = len(self.output_logprobs)
        return {"text": text, "output_ids": ids, "meta_info": meta}

    def _logprobs(self, side: str, entries: list[LogprobEntry], wanted: LogprobRequest) -> dict[str, Any]:
        found: dict[str, Any] = {f"{side}_token_logprobs": [self._triple(e.logprob, e.token) for e in entries]}
        if wanted.top:
            found[f"{side}_top_logprobs"] = [self._triples(e.top) for e in entries]
        if wanted.token_ids:
            found[f"{side}_token_ids_logprobs"] = [self._triples(e.chosen_ids) for e in entries]
        return found

    def _triple(self, logprob: float | None, token: int) -> list[Any]:
        return [logprob, token, self.decode(token) if self.decode else None]

    def _triples(self, alternatives: list[tuple[float, int]] | None) -> list[list[Any]] | None:
        return None if alternatives is None else [self._triple(*alternative) for alternative in alternatives]
