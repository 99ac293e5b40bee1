"""How a request wants its tokens chosen: SGLang's `sampling_params` object, checked and typed.

Source of names, defaults and messages: SGLang's native `/generate` API. A value of the wrong type or outside its range, and a
name that does not exist, is a `RequestError` that names the field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import regex

from .errors import RequestError

GREEDY_BELOW = 1e-6
MAX_STOPS = 32
MAX_STOP_REGEX_BYTES = 256

ConstraintKind = Literal["regex", "json_schema", "ebnf", "structural_tag"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A formal language that the output must belong to."""

    kind: ConstraintKind
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Checked sampling parameters. `max_new_tokens=None` means: up to the model's context length."""

    max_new_tokens: int | None = 128
    min_new_tokens: int = 0
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    stop_regex: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    regex: str | None = None
    json_schema: str | None = None
    ebnf: str | None = None
    structural_tag: str | None = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    no_stop_trim: bool = False
    stream_interval: int | None = None
    sampling_seed: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW or self.top_k == 1

    @property
    def constraint(self) -> Constraint | None:
        kinds: tuple[ConstraintKind, ...] = ("regex", "json_schema", "ebnf", "structural_tag")
        return next((Constraint(kind, text) for kind in kinds if (text := getattr(self, kind))), None)

    @classmethod
    def from_json(cls, raw: Any) -> SamplingParams:
        """Read a JSON object; `null` stands for the default (except `max_new_tokens`, where it means no limit)."""
        if raw is None:
            return cls()
        if not isinstance(raw, dict):
            raise RequestError(f"sampling_params must be an object, got {_json_type(raw)}.")
        known = {f.name for f in fields(cls)}
        unknown = next((name for name in raw if name not in known), None)
        if unknown is not None:
            raise RequestError(
                f"unknown field `{unknown}` in sampling_params, expected one of {', '.join(sorted(known))}."
            )
        given = {name: value for name, value in raw.items() if value is not None or name == "max_new_tokens"}
        params = cls(**{name: _READERS[name](name, value) for name, value in given.items()})
        params.check()
        return params

    def check(self) -> None:
        """Raise `RequestError` for the first value outside its range."""
        limit = math.inf if self.max_new_tokens is None else self.max_new_tokens
        ranges = {
            "temperature": (self.temperature >= 0, "a non-negative finite number"),
            "top_p": (0 < self.top_p <= 1, "in (0, 1]"),
            "min_p": (0 <= self.min_p <= 1, "in [0, 1]"),
            "top_k": (self.top_k == -1 or self.top_k >= 1, "-1 (disable) or at least 1"),
            "frequency_penalty": (-2 <= self.frequency_penalty <= 2, "in [-2, 2]"),
            "presence_penalty": (-2 <= self.presence_penalty <= 2, "in [-2, 2]"),
            "repetition_penalty": (0 < self.repetition_penalty <= 2, "in (0, 2]"),
            "max_new_tokens": (limit >= 0, "at least 0"),
            "min_new_tokens": (0 <= self.min_new_tokens <= limit, f"in [0, max_new_tokens({self.max_new_tokens})]"),
            "n": (1 <= self.n <= 128, "in [1, 128]"),
            "stop_token_ids": (all(0 <= token < 1 << 31 for token in self.stop_token_ids), "a list of token ids"),
            "stream_interval": (self.stream_interval is None or self.stream_interval >= 1, "at least 1"),
        }
        for name, (holds, wanted) in ranges.items():
            if not holds:
                raise RequestError(f"{name} must be {wanted}, got {getattr(self, name)}.", param=name)
        if sum(bool(text) for text in (self.regex, self.json_schema, self.ebnf, self.structural_tag)) > 1:
            raise RequestError("Only one of regex, json_schema, ebnf, or structural_tag can be set.")
        self._check_stops()

    def _check_stops(self) -> None:
        if len(self.stop) > MAX_STOPS or len(self.stop_regex) > MAX_STOPS:
            raise RequestError(f"stop and stop_regex take at most {MAX_STOPS} entries each.")
        if "" in self.stop:
            raise RequestError(
                "stop must not hold an empty string: it would stop before the first token.", param="stop"
            )
        for pattern in self.stop_regex:
            if len(pattern.encode()) > MAX_STOP_REGEX_BYTES:
                raise RequestError(f"stop_regex takes patterns of at most {MAX_STOP_REGEX_BYTES} bytes.")
            try:
                regex.compile(pattern)
            except regex.error as error:
                raise RequestError(f"stop_regex {pattern!r} is not a regular expression: {error}.") from None


def _json_type(value: Any) -> str:
    names = {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _wrong_type(name: str, value: Any, wanted: str) -> RequestError:
    return RequestError(f"{name} must be {wanted}, got {_json_type(value)}.", param=name)


def _integer(name: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(name, value, "an integer")
    if not -(1 << 63) <= value < 1 << 63:
        raise RequestError(f"{name} must be a 64-bit integer.", param=name)
    return value


def _optional_integer(name: str, value: Any) -> int | None:
    return None if value is None else _integer(name, value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(name, value, "a number")
    if (isinstance(value, int) and abs(value) >= 1 << 63) or not math.isfinite(value):
        raise RequestError(f"{name} must be a finite number, got {value}.", param=name)
    return float(value)


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(name, value, "a boolean")
    return value


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type(name, value, "a string")
    return value


def _strings(name: str, value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise _wrong_type(name, value, "a string or an array of strings")
    return tuple(items)


def _integers(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _wrong_type(name, value, "an array of integers")
    return tuple(_integer(name, item) for item in value)


def _bias(name: str, value: Any) -> dict[int, float]:
    if not isinstance(value, dict):
        raise _wrong_type(name, value, "an object of token ids and numbers")
    if not all(token.isascii() and token.isdigit() and len(token) < 11 for token in value):
        raise RequestError(f"{name} must map token ids to numbers, got the keys {list(value)[:3]}.", param=name)
    return {int(token): _number(name, bias) for token, bias in value.items()}


_READERS = {
    "max_new_tokens": _optional_integer, "min_new_tokens": _integer, "n": _integer, "stop": _strings,
    "stop_token_ids": _integers, "stop_regex": _strings, "temperature": _number, "top_p": _number, "top_k": _integer,
    "min_p": _number, "frequency_penalty": _number, "presence_penalty": _number, "repetition_penalty": _number,
    "logit_bias": _bias, "regex": _string, "json_schema": _string, "ebnf": _string, "structural_tag": _string,
    "ignore_eos": _boolean, "skip_special_tokens": _boolean, "spaces_between_special_tokens": _boolean,
    "no_stop_trim": _boolean, "stream_interval": _optional_integer, "sampling_seed": _optional_integer,
}  # fmt: skip
