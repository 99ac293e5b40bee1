"""Answers in the form of OpenAI's routes, as the language knows them: text, and meta_info with SGLang's names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sgl_jupyter.backends.api import finish_reason
from sgl_jupyter.backends.base import BackendError, TokenLogprob

NO_ID = -1
"""The id of a token whose server tells its text alone."""


class Answer:
    """One answer as it arrives: a choice of a response, or that of each chunk of a stream."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._id = ""
        self._finish: tuple[str, Any] | None = None
        self._usage: Any = None
        self._reasoning = ""
        self._logprobs: list[TokenLogprob] = []
        self._top_logprobs: list[list[TokenLogprob]] = []

    @property
    def is_complete(self) -> bool:
        return self._finish is not None

    def take(self, choice: Any) -> str:
        """The text of `choice`, with which the answer goes on. Raises BackendError where it is a refusal."""
        message = getattr(choice, "delta", None) or getattr(choice, "message", None)
        if refusal := getattr(message, "refusal", None):
            raise BackendError(f"{self._backend} refused to answer: {refusal}")
        if choice.finish_reason:
            self._finish = choice.finish_reason, getattr(choice, "matched_stop", None)
        if choice.logprobs is not None:
            self._take_logprobs(choice.logprobs)
        self._reasoning += getattr(message, "reasoning_content", None) or ""
        return (choice.text if message is None else message.content) or ""

    def take_frame(self, response: Any) -> None:
        """What comes around the choices."""
        self._id = response.id or self._id
        self._usage = getattr(response, "usage", None) or self._usage

    def meta_info(self) -> dict[str, Any]:
        """All that is known by now."""
        usage = self._usage
        completion_tokens = usage.completion_tokens if usage else None
        kind, matched = self._finish or (None, None)
        found: dict[str, Any] = {
            "id": self._id,
            "finish_reason": None if kind is None else finish_reason(kind, completion_tokens, matched),
        }
        if usage:
            found |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": completion_tokens}
            cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None)
            found |= {} if cached is None else {"cached_tokens": cached}
        if self._reasoning:
            found["reasoning_content"] = self._reasoning
        if self._logprobs:
            found["output_token_logprobs"] = self._logprobs
        if any(self._top_logprobs):
            found["output_top_logprobs"] = self._top_logprobs
        return found

    def _take_logprobs(self, logprobs: Any) -> None:
        if content := getattr(logprobs, "content", None):
            self._logprobs += [_named(entry) for entry in content]
            self._top_logprobs += [[_named(entry) for entry in top.top_logprobs or ()] for top in content]
        elif getattr(logprobs, "tokens", None):
            self._logprobs += token_logprobs(logprobs)
            self._top_logprobs += [
                [(logprob, NO_ID, token) for token, logprob in (top or {}).items()]
                for top in logprobs.top_logprobs or ()
            ]


class StopCutter:
    """Ends a stream of text before the first of `stop`. What may yet become one is held back."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self._found = False

    def feed(self, text: str) -> str:
        """The text that can be told by now."""
        self._held += text
        ends = [place for place in map(self._held.find, self._stop) if place >= 0]
        self._found = self._found or bool(ends)
        safe = min(ends) if ends else len(self._held) - self._beginning_of_stop()
        told, self._held = self._held[:safe], self._held[safe:]
        return told

    def rest(self) -> str:
        """What is left at the end."""
        return "" if self._found else self._held

    def _beginning_of_stop(self) -> int:
        """The length of the text's end with which a stop string begins."""
        longest = max(map(len, self._stop), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0


def token_logprobs(logprobs: Any) -> list[TokenLogprob]:
    """The tokens of a completion, with the prompt's where they were asked for."""
    pairs: Iterable[tuple[str, float | None]] = zip(logprobs.tokens, logprobs.token_logprobs, strict=True)
    return [(logprob, NO_ID, token) for token, logprob in pairs]


def _named(entry: Any) -> TokenLogprob:
    return entry.logprob, NO_ID, entry.token
