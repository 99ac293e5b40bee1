"""How far generations are, and what they took: tokens and times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Any

from sgl_jupyter.lang import events

ASK_AFTER = 1.0
"""Seconds for which nothing has come, before the engine is asked why; and seconds between two such questions."""


@dataclass(slots=True)
class Usage:
    """Tokens over all requests of a run and its forks, which share one. Cached tokens are part of the prompt tokens."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def add(self, usage: events.Usage) -> None:
        """Add the counts of one generation."""
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.cached_tokens += usage.cached_tokens


@dataclass(slots=True)
class Progress:
    """A request whose text is still arriving. Times are of `time.monotonic()`, in seconds."""

    variable: str | None
    began: float
    first: float | None = None
    """When the first of its text came."""
    latest: float = 0.0
    tokens: int = 0
    tokens_at_first: int = 0
    prompt_tokens: int = 0
    """Those of its prompt, once it is read, where the server tells."""
    cached_tokens: int = 0
    """Those of them that the engine knew from earlier requests."""

    @property
    def tokens_per_second(self) -> float:
        """Since the first of its text came; 0 where that is not known."""
        seconds = self.latest - self.first if self.first is not None else 0.0
        return (self.tokens - self.tokens_at_first) / seconds if seconds > 0 else 0.0

    def advance(self, time: float, tokens: int | None) -> None:
        """Some text came at `time`, with which the generation has so many `tokens`, if that is known."""
        self.tokens = tokens or self.tokens
        if self.first is None:
            self.first, self.tokens_at_first = time, self.tokens
        self.latest = time


class EngineWatch:
    """What an engine does while a request of ours waits. It is asked in a thread of its own, one question at a time.

    Args:
        ask: gives the server's info, or None where it tells nothing. May block, and fail as backends do.
    """

    def __init__(self, ask: Callable[[], dict[str, Any] | None]) -> None:
        self._ask = ask
        self._thread: Thread | None = None
        self._asked = 0.0
        self._words = ""

    def words(self, waits_since: float) -> str:
        """What is known of a request that waits since `waits_since`; nothing as long as there is nothing to wonder at."""
        now = time.monotonic()
        if now - waits_since < ASK_AFTER:
            return ""
        if now - self._asked >= ASK_AFTER and not (self._thread and self._thread.is_alive()):
            self._asked = now
            self._thread = Thread(target=self._look, name="sgl-engine-watch", daemon=True)
            self._thread.start()
        return self._words

    def _look(self) -> None:
        try:
            self._words = waiting_words(self._ask() or {})
        except RuntimeError:  # it tells nothing; whether the run fails is the run's to say
            self._words = ""


def waiting_words(info: dict[str, Any]) -> str:
    """What a request waits for on a server with this info, if the server tells of its requests."""
    states = info.get("internal_states") or [{}]
    state = states[0] if isinstance(states, list) else states
    running, waiting = state.get("running_requests"), state.get("waiting_requests")
    if not isinstance(running, int) or not isinstance(waiting, int):
        return ""
    if waiting:
        before = running + waiting - 1
        return f"queued behind {before} request{'' if before == 1 else 's'}"
    prompts = state.get("prefilling") or []
    if len(prompts) != 1:  # of several, which one is ours is not told
        return "prefill" if running else ""
    whole, cached, computed = (prompts[0][f"{kind}_tokens"] for kind in ("prompt", "cached", "computed"))
    known = f", {cached:,} of them cached" if cached else ""
    return f"prefill of {whole:,} tokens{known} · {computed:,} read"
