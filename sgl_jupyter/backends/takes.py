"""Takes: one request and its answer as a line of a recording, and how requests are told apart.

What a request leaves at its default is not written, so that recordings stay valid when parameters are added.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from sgl_jupyter.backends.base import (
    BackendError,
    BackendUnreachable,
    ChoiceScore,
    Chunk,
    Image,
    Prompt,
    SamplingParams,
    Video,
)

SECRETS = ("api_key", "password", "secret")
SHOWN = 30
"""Characters shown on each side of the place where two prompts part."""

Request = dict[str, Any]


@dataclass
class Take:
    """One request and its answer as far as it came."""

    number: int
    """The place of the request among those of its session: answers may come in another order."""
    request: Request
    chunks: list[tuple[float, Chunk]] = field(default_factory=list)
    """For generated text, with the seconds since the request was made."""
    result: Any = None
    """For all else."""
    error: Exception | None = None
    stopped: bool = False
    """Whether the program left before the end."""
    end: float = 0.0
    """Seconds from the request to its end."""
    _begun: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return round(time.monotonic() - self._begun, 4)

    def add(self, chunk: Chunk) -> None:
        self.chunks.append((self.seconds(), chunk))

    def to_json(self) -> dict[str, Any]:
        line: dict[str, Any] = {"number": self.number, **self.request}
        if self.chunks:
            line["chunks"] = _chunks_to_json(self.chunks)
        if self.result is not None:
            line["result"] = [_written(score) for score in self.result] if _is_scores(self.result) else self.result
        if self.error is not None:
            status = getattr(self.error, "status", None)
            line["error"] = {"type": type(self.error).__name__, "message": str(self.error), "status": status}
        if self.stopped:
            line["stopped"] = True
        return line | {"end": self.end}

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> Take:
        """Raises KeyError, TypeError or ValueError if `line` is none that `to_json` wrote."""
        answer = {name: line.pop(name, None) for name in ("number", "chunks", "result", "error", "stopped", "end")}
        take = cls(answer["number"], line, stopped=bool(answer["stopped"]), end=float(answer["end"]))
        take.chunks = _chunks_from_json(answer["chunks"] or [])
        take.result = _result_from_json(line["method"], answer["result"])
        take.error = _error_from_json(answer["error"]) if answer["error"] else None
        return take


def request_of(method: str, prompt: Prompt | None = None, **arguments: Any) -> Request:
    """What a request is known by: all that can change its answer, as JSON."""
    request: Request = {"method": method}
    if prompt is not None:
        request["prompt"] = str(prompt)
        if media := [_medium(medium) for medium in getattr(prompt, "media", ())]:
            request["media"] = media
    for name, value in arguments.items():
        request[name] = _written(value) if isinstance(value, SamplingParams) else value
    return request


def difference(request: Request, recorded: Sequence[Request]) -> str:
    """A sentence about the recorded request that is nearest to `request`: where the two differ."""
    candidates = [other for other in recorded if other["method"] == request["method"]]
    if not candidates:
        return f"No request to {request['method']} was recorded."
    nearest = max(candidates, key=lambda other: _likeness(request, other))
    here, there = _flat(request), _flat(nearest)
    names = [name for name in here | there if here.get(name) != there.get(name) and name != "prompt"]
    differences = [f"{name} is {_value(here, name)} here and {_value(there, name)} there" for name in names]
    if here.get("prompt") != there.get("prompt"):
        differences.append(_where_they_part(here["prompt"], there["prompt"]))
    return f"The nearest that was recorded differs: {'; '.join(differences)}."


def without_secrets(info: Any) -> Any:
    """A server's description without the API keys that some servers put into it, at any depth."""
    if isinstance(info, list):
        return [without_secrets(each) for each in info]
    if not isinstance(info, dict):
        return info
    allowed = {name: value for name, value in info.items() if not any(secret in name.lower() for secret in SECRETS)}
    return {name: without_secrets(value) for name, value in allowed.items()}


def _written(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default."""
    named = {each.name: getattr(value, each.name) for each in fields(value)}
    return {each.name: _plain(named[each.name]) for each in fields(value) if named[each.name] != _default(each)}


def _default(each: Field[Any]) -> Any:
    """The field's default; MISSING, which nothing equals, if it has none."""
    return each.default if each.default_factory is MISSING else each.default_factory()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _medium(medium: Image | Video) -> Any:
    """A medium by its digest where it is a file in the request, by its address otherwise."""
    if isinstance(medium, Video):
        return [_medium(frame) for frame in medium.frames]
    if medium.base64 is None:
        return medium.url
    return "sha256:" + hashlib.sha256(medium.url.encode()).hexdigest()


def _chunks_to_json(chunks: Sequence[tuple[float, Chunk]]) -> list[dict[str, Any]]:
    """Of each chunk's meta_info what has changed since the last; of a list that has grown, as those of logprobs do, its end."""
    lines, before = [], {}
    for seconds, chunk in chunks:
        after = chunk.meta_info
        line = {"at": seconds, "text": chunk.text, "set": {}, "grow": {}, "drop": [n for n in before if n not in after]}
        for name, value in after.items():
            old = before.get(name)
            if name in before and value == old:
                continue
            if old and isinstance(value, list) and isinstance(old, list) and value[: len(old)] == old:
                line["grow"][name] = value[len(old) :]
            else:
                line["set"][name] = value
        lines.append({name: value for name, value in line.items() if value or name in ("at", "text")})
        before = after
    return lines


def _chunks_from_json(lines: Sequence[dict[str, Any]]) -> list[tuple[float, Chunk]]:
    chunks, meta_info = [], {}
    for line in lines:
        grown = {name: meta_info[name] + items for name, items in line.get("grow", {}).items()}
        meta_info = {name: value for name, value in meta_info.items() if name not in line.get("drop", [])}
        meta_info = meta_info | line.get("set", {}) | grown
        chunks.append((line["at"], Chunk(line["text"], meta_info)))
    return chunks


def _is_scores(result: Any) -> bool:
    return isinstance(result, list) and all(isinstance(score, ChoiceScore) for score in result)


def _result_from_json(method: str, result: Any) -> Any:
    match method:
        case "score" if result is not None:
            return [ChoiceScore(*(_tokens(score.get(name)) for name in ("given_prompt", "alone"))) for score in result]
        case "choose" if result is not None:
            return tuple(result)
        case _:
            return result


def _tokens(tokens: Any) -> Any:
    return None if tokens is None else [tuple(token) for token in tokens]


def _error_from_json(error: dict[str, Any]) -> BackendError:
    kind = BackendUnreachable if error["type"] == BackendUnreachable.__name__ else BackendError
    return kind(error["message"], error["status"])


def _likeness(one: Request, other: Request) -> float:
    """From 0 to 2: the share of the prompts' characters that agree from both ends, and of the other fields."""
    here, there = _flat(one), _flat(other)
    first, second = here.pop("prompt", ""), there.pop("prompt", "")
    front = _common_start(first, second)
    back = _common_start(first[front:][::-1], second[front:][::-1])
    names = here | there
    equal = sum(here.get(name) == there.get(name) for name in names)
    return (front + back) / max(len(first), len(second), 1) + equal / len(names)


def _common_start(one: str, other: str) -> int:
    """How many characters the two have in common from the first on."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _flat(request: Request) -> Request:
    """The request with its sampling parameters beside its other fields."""
    return {name: value for name, value in request.items() if name != "params"} | request.get("params", {})


def _value(request: Request, name: str) -> str:
    return repr(request[name]) if name in request else "not given"


def _where_they_part(here: str, there: str) -> str:
    place = _common_start(here, there)
    start = max(place - SHOWN, 0)
    return (
        f"the prompts part at character {place}: {here[start : place + SHOWN]!r} here, "
        f"{there[start : place + SHOWN]!r} there"
    )
