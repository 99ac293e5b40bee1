"""What happens in a run, as one typed, append-only stream.

Every state owns one `EventLog`. The executor is its only writer; the live display, `text_iter`, the run record and recordings
are readers, each with a position of its own, so any number of them can follow a run, from its first event or from now.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from sgl_jupyter.backends.base import Image, Video

INTERRUPTIBLE = 0.5
"""Seconds to wait in one go: not on every platform does an interrupt end a wait without a limit, or wake a kernel's loop."""

Origin = Literal["template", "prompt", "generated", "chosen", "forced"]
"""Where a piece of text came from: the chat template's markup, the program, the model's free choice, a `select`, or the
constraint, which left the model no choice."""


@dataclass(frozen=True, slots=True)
class RoleOpened:
    """A message of `role` begins; its text follows until `RoleClosed`."""

    role: str


@dataclass(frozen=True, slots=True)
class RoleClosed:
    role: str


@dataclass(frozen=True, slots=True)
class Text:
    """`text` was appended to the state. Joined in order, all texts are exactly `state.text()`."""

    text: str
    origin: Origin
    variable: str | None = None
    """The variable that this text belongs to, for generated and chosen text."""
    completion_tokens: int | None = field(default=None, compare=False)
    """How many tokens the generation has taken with this text, where the server tells."""
    media: Image | Video | None = None
    """The image or video that this text stands for."""


@dataclass(frozen=True, slots=True)
class GenerationStarted:
    """A request for `variable` went to the backend; text follows as it arrives."""

    variable: str | None


@dataclass(frozen=True, slots=True)
class PromptRead:
    """The engine has read the prompt of `variable`, of which it knew `cached_tokens` from earlier requests."""

    variable: str | None
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Reasoning:
    """`text` was thought on the way to `variable`; it is no part of the state's text."""

    text: str
    variable: str | None


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the model. Which of its fields are known depends on what was asked for."""

    id: int
    text: str | None
    logprob: float | None
    """The natural logarithm of its probability; None where nothing precedes it."""
    cached: bool = False
    """Whether the engine had computed it before: a token of the prompt that it shares with an earlier request."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a request that asks for log-probabilities, as they become known: its prompt's, then those generated."""

    variable: str | None
    origin: Literal["prompt", "generated"]
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the generation of `variable` took, in tokens; `seconds` from its request to its last token."""

    variable: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    seconds: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class VariableDone:
    """`variable` has its final value; `meta_info` is the backend's (finish reason, token counts, logprobs)."""

    variable: str | None
    value: Any
    meta_info: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Forked:
    """The state was copied; each child goes on in a log of its own, which starts at the fork."""

    children: tuple[EventLog, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """The children of the latest fork ended and their variables were gathered."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The run ended with `error`. Text and variables up to here stay readable."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run was cancelled by its user. Text and variables up to here stay readable."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The run ended as its program said."""


Event = (
    RoleOpened
    | RoleClosed
    | Text
    | GenerationStarted
    | PromptRead
    | Reasoning
    | Tokens
    | Usage
    | VariableDone
    | Forked
    | Joined
    | Failed
    | Stopped
    | Finished
)


@dataclass(slots=True)
class EventLog:
    """Append-only events, readable from any thread and any event loop while one executor writes.

    The log is closed by its last event: `Finished`, `Stopped` or `Failed`. `times[i]` is the `time.monotonic()` of
    `events[i]`, in seconds.
    """

    events: list[Event] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    closed: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _async_waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list)

    def append(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self.times.append(time.monotonic())
            self.closed = self.closed or isinstance(event, Finished | Stopped | Failed)
            waiters, self._async_waiters = self._async_waiters, []
            self._changed.notify_all()
        for loop, waiter in waiters:
            if not loop.is_closed():
                loop.call_soon_threadsafe(waiter.set)

    def wait(self, position: int, timeout: float | None = None) -> bool:
        """Block until there is an event at `position` (True), or the log is closed or `timeout` seconds passed (False)."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.events) > position or self.closed, timeout)
            return len(self.events) > position

    async def wait_async(self, position: int) -> bool:
        """`wait` for coroutines, without a timeout and without blocking their loop."""
        while True:
            with self._changed:
                if len(self.events) > position or self.closed:
                    return len(self.events) > position
                changed = asyncio.Event()
                self._async_waiters.append((asyncio.get_running_loop(), changed))
            while not changed.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(INTERRUPTIBLE):  # and not wait_for, which can swallow a cancellation
                        await changed.wait()

    def __iter__(self) -> Iterator[Event]:
        """Events from the first one, blocking for those to come, until the log is closed."""
        position = 0
        while self.wait(position):
            yield self.events[position]
            position += 1

    async def __aiter__(self) -> AsyncIterator[Event]:
        position = 0
        while await self.wait_async(position):
            yield self.events[position]
            position += 1
