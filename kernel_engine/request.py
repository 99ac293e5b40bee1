"""What is asked of the engine (`Request`), what becomes of it there (`Sequence`), and what comes back (`Output`)."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .matchers import Matcher
from .radix import Node, Tokens
from .sampling_params import SamplingParams
from .speculate import Drafter
from .text import TextStream
from .vision.prompt import Prompt


@dataclass(frozen=True, slots=True)
class LogprobRequest:
    """Which log-probabilities to return: of prompt tokens from `start` on (-1: none), and of every output token.

    `top` alternatives are added at each position, and those of `token_ids`.
    """

    start: int = -1
    top: int = 0
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A checked request: one prompt, one sample."""

    rid: str
    prompt: Prompt
    params: SamplingParams = field(default_factory=SamplingParams)
    logprobs: LogprobRequest | None = None
    lora_path: str | None = None
    """The adapter's name; None: the model without one."""
    priority: int = 0
    stream_interval: int | None = None
    """New tokens per output; None: one output, at the end."""

    @property
    def input_ids(self) -> list[int]:
        return self.prompt.ids


class LogprobEntry(NamedTuple):
    """One position of the text: its token's log-probability (None for the first), and the alternatives asked for."""

    logprob: float | None
    token: int
    top: list[tuple[float, int]] | None = None
    chosen_ids: list[tuple[float, int]] | None = None


@dataclass(slots=True)
class Output:
    """What one step added to one request. The last output of a request has a `finish_reason`."""

    rid: str
    text: str
    token_ids: list[int]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    finish_reason: dict[str, Any] | None = None
    input_logprobs: list[LogprobEntry] = field(default_factory=list)
    output_logprobs: list[LogprobEntry] = field(default_factory=list)
    retractions: int = 0
    speculation: dict[str, Any] = field(default_factory=dict)
    """SGLang's figures of it; empty without."""
    forced: list[tuple[int, int]] = field(default_factory=list)
    """Where in the whole text, from one character to before another, it is what the constraint forced."""


def finished_by_stop(matched: int | str) -> dict[str, Any]:
    return {"type": "stop", "matched": matched}


def finished_by_length(length: int) -> dict[str, Any]:
    return {"type": "length", "length": length}


def aborted(message: str, status_code: int | None = None) -> dict[str, Any]:
    """`status_code` None: its sender wanted it; otherwise the request failed and the code says whose fault it was."""
    kinds = {None: None, 400: "BadRequestError", 503: "ServiceUnavailableError"}
    kind = kinds.get(status_code, "InternalServerError")
    return {"type": "abort", "message": message, "status_code": status_code, "err_type": kind}


def refusal(request: Request, reason: dict[str, Any]) -> Output:
    """The only output of a request that gives none."""
    return Output(request.rid, "", [], len(request.input_ids), 0, 0, finish_reason=reason)


@dataclass(eq=False, slots=True)
class Sequence:
    """A request in the engine. Its tokens are the prompt and the output so far; the first `computed` have their keys and
    values in the pool, in the slots of `rows.table[row]`.

        tokens   | shared: the tree's slots, locked at node | owned | owned, this step computes them | no slots yet |
                 0                                       shared  computed                      allocated    len(tokens)
    """

    request: Request
    max_new_tokens: int
    seed: int
    text: TextStream
    matcher: Matcher | None = None
    drafter: Drafter | None = None
    adapter: int = 0
    tokens: list[int] = field(default_factory=list)
    prompt_length: int = 0
    shared: int = 0
    computed: int = 0
    allocated: int = 0
    row: int = -1
    node: Node | None = None
    arrival: int = 0
    """The scheduler's step at which it came."""
    arrived: float = field(default_factory=time.monotonic)
    admitted_at: float | None = None
    first_token_at: float | None = None
    cached_tokens: int | None = None
    retractions: int = 0
    finish_reason: dict[str, Any] | None = None
    poisoned: bool = False
    """Its keys and values are not numbers, and must not be cached."""
    output_counts: Counter[int] = field(default_factory=Counter)
    input_logprobs: list[LogprobEntry] = field(default_factory=list)
    output_logprobs: list[LogprobEntry] = field(default_factory=list)
    forced: list[tuple[int, int]] = field(default_factory=list)
    emitted: int = 0
    """Output tokens already delivered."""
    known_match: tuple[int, int] = (-1, 0)
    """Tree version and length of the prefix cached at that version, while waiting."""

    _key: Tokens = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        self.tokens = list(self.request.input_ids)
        self.prompt_length = len(self.tokens)
        if self.request.logprobs and self.request.logprobs.start >= 0:
            self.input_logprobs.append(LogprobEntry(None, self.tokens[self.request.logprobs.start]))

    @property
    def output_length(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def pending(self) -> int:
        """Tokens that must be computed before the next one can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def prefilling(self) -> bool:
        return self.computed < self.prompt_length

    @property
    def unscored(self) -> int:
        """Position of the first prompt token whose log-probability is asked for and not known yet; else the prompt's end."""
        if self.request.logprobs is None or self.request.logprobs.start < 0:
            return self.prompt_length
        return self.request.logprobs.start + len(self.input_logprobs)

    @property
    def cacheable(self) -> int:
        """How many leading tokens may come from the cache: the last is always computed, and so is the one before a token
        whose log-probability is asked for."""
        return min(len(self.tokens), self.unscored if self.unscored < self.prompt_length else len(self.tokens)) - 1

    @property
    def has_output(self) -> bool:
        """Whether there is something to deliver now: it has finished, or a stream has tokens enough."""
        new, interval = self.output_length - self.emitted, self.request.stream_interval
        return self.finish_reason is not None or (interval is not None and new >= interval)

    def take_output(self) -> Output:
        """What came since the last call."""
        output = Output(
            rid=self.request.rid,
            text=self.text.take(final=self.finish_reason is not None),
            token_ids=self.tokens[self.prompt_length + self.emitted :],
            prompt_tokens=self.prompt_length,
            completion_tokens=self.output_length,
            cached_tokens=min(self.cached_tokens or 0, self.prompt_length - 1),
            finish_reason=self.finish_reason,
            input_logprobs=[] if self.emitted else self.input_logprobs,
            output_logprobs=self.output_logprobs[self.emitted :],
            retractions=self.retractions,
            speculation=self.drafter.report(self.output_length) if self.drafter else {},
            forced=list(self.forced),
        )
        self.emitted = self.output_length
        return output

    def draft(self, limit: int) -> list[int]:
        """Up to `limit` tokens that may come next, if that is guessed at all; never the last one that it may get, since
        nothing follows it."""
        room = self.max_new_tokens - self.output_length - 1
        return self.drafter.propose(self.tokens, min(limit, room)) if self.drafter else []

    def key(self, length: int) -> Tokens:
        """The first `length` tokens as a key of the prefix cache, in which a picture's content stands at all of its places.
        Its first one is another for each adapter, since the keys and values of one are of no use to another."""
        if len(self._key) < length:
            self._key = np.array(self.tokens, dtype=np.int64)
            for placed in self.request.prompt.pictures:
                self._key[placed.start : placed.stop] = placed.picture.key
            self._key[0] += self.adapter << 32
        return self._key[:length]

    def positions(self, start: int, stop: int) -> np.ndarray:
        """Where its tokens `start..stop` are for the model, `[axes, stop - start]`, or one row that holds for every axis.
        After the prompt each token is one further than the one before, on every axis."""
        given = self.request.prompt.positions
        if given is None:
            return np.arange(start, stop)[None]
        beyond = np.arange(max(start, self.prompt_length), stop) + (given.max() + 1 - self.prompt_length)
        return np.concatenate([given[:, start:stop], np.broadcast_to(beyond, (len(given), len(beyond)))], axis=1)
