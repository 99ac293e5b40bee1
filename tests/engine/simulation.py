"""The real scheduler with a model that costs nothing: a token's "keys and values" are a hash of its whole context, and the
next token is a hash of that. A slot that holds anything but what its reader expects is found at once."""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any, cast

import numpy as np

from kernel_engine.batch import rows_with_logits
from kernel_engine.plan import Segment
from kernel_engine.request import LogprobEntry, LogprobRequest, Request, Sequence
from kernel_engine.sampling_params import SamplingParams
from kernel_engine.schedule import Policy, Scheduler
from kernel_engine.speculate import Drafter
from kernel_engine.text import TextStream
from kernel_engine.vision.prompt import Prompt

END = 0
"""A next token that ends a sequence before its time."""
EMPTY = 17
"""The hash of no context."""


def extended(context_hash: int, token: int) -> int:
    """The hash of a context that goes on by `token`."""
    return (context_hash * 6364136223846793005 + token + 1442695040888963407) % (1 << 61)


def next_token(context_hash: int) -> int:
    return (context_hash >> 20) % 97


def completion(prompt: list[int], count: int) -> list[int]:
    """What a sequence must give, whatever happens to it on the way."""
    context = functools.reduce(extended, prompt, EMPTY)
    answer: list[int] = []
    while len(answer) < count and END not in answer:
        answer.append(next_token(context))
        context = extended(context, answer[-1])
    return answer


class Guesses(Drafter):
    """Drafts of what comes of `prompt`, each token wrong with a chance of `errors`."""

    def __init__(self, prompt: list[int], count: int, errors: float, seed: int):
        super().__init__(most=5)
        self._text = prompt + completion(prompt, count)
        self._errors, self._random = errors, random.Random(seed)

    def propose(self, tokens: list[int], limit: int) -> list[int]:
        draft = self._text[len(tokens) : len(tokens) + max(0, min(limit, self.most))]
        return [98 if self._random.random() < self._errors else token for token in draft]


class Simulation:
    """Requests in, finished sequences out. `prompt_computed` counts prompt tokens that were computed."""

    def __init__(
        self,
        slots: int,
        rows: int = 64,
        context: int = 4096,
        chunk: int = 512,
        max_prefill: int = 1 << 30,
        **policy: Any,
    ):
        self.scheduler = Scheduler(slots, rows, context, Policy(chunk=chunk, max_prefill=max_prefill, **policy))
        self.finished: list[Sequence] = []
        self.prompt_computed = 0
        self.steps = 0
        self._answers: dict[Sequence, list[int]] = {}
        self._hashes: dict[Sequence, np.ndarray] = {}
        self._held = np.zeros(slots + 1, dtype=np.int64)

    def add(
        self,
        prompt: list[int],
        max_new_tokens: int = 1,
        *,
        priority: int = 0,
        score_from: int | None = None,
        answer: list[int] | None = None,
        drafter: Drafter | None = None,
    ) -> Sequence:
        request = Request(
            rid="",
            prompt=Prompt(prompt),
            params=SamplingParams(max_new_tokens=max_new_tokens),
            priority=priority,
            logprobs=None if score_from is None else LogprobRequest(start=score_from),
        )
        sequence = Sequence(request, max_new_tokens=max_new_tokens, seed=0, text=cast(TextStream, None))
        sequence.drafter = drafter
        if answer is not None:
            self._answers[sequence] = answer
        self.scheduler.add(sequence)
        return sequence

    def abort(self, sequence: Sequence) -> None:
        if sequence not in self.finished:
            self.scheduler.finish(sequence)
            self.finished.append(sequence)

    def step(self) -> None:
        self.steps += 1
        plan = self.scheduler.plan()
        assert plan.segments, "a step without work"
        assert len({segment.sequence.row for segment in plan.segments}) == len(plan.segments)
        for segment in plan.segments:
            self._compute(segment)
        completed = [segment.sequence for segment in plan.segments if segment.completes]
        for segment in plan.segments:
            self._collect(segment)
        for segment in plan.segments:
            self.scheduler.computed(segment)
        for sequence in completed:
            self._finish(sequence)
        self.scheduler.check_integrity()

    def run(self) -> None:
        """Step until all is done; a request that never gets its turn fails here."""
        limit = self.steps + 20_000
        while self.scheduler.running or self.scheduler.waiting:
            assert self.steps < limit, "no end in sight"
            self.step()
        assert (self.scheduler.used, self.scheduler.tree.protected) == (0, 0)

    def _compute(self, segment: Segment) -> None:
        sequence, stop = segment.sequence, segment.start + segment.count
        assert 0 < segment.count <= stop <= len(sequence.tokens) + len(segment.draft)
        expected = self._expected(sequence, segment.known)
        drafted = itertools.accumulate(segment.draft, extended, initial=int(expected[-1]))
        expected = np.concatenate([expected, np.array([*drafted][1:], dtype=np.int64)])
        slots = self.scheduler.rows.table[sequence.row, :stop]
        self._held[slots[segment.start :]] = expected[segment.start :]
        assert np.array_equal(self._held[slots], expected), "a slot holds another context"
        self.prompt_computed += max(0, min(stop, sequence.prompt_length) - segment.start)

    def _collect(self, segment: Segment) -> None:
        sequence = segment.sequence
        scored = len(rows_with_logits(segment)) - (1 + len(segment.draft)) * segment.completes
        sequence.input_logprobs += [LogprobEntry(-1.0, 0)] * scored
        if not segment.completes:
            return
        turns = 1 + len(segment.draft) if sequence.max_new_tokens > 0 else 0
        while turns and not self._has_ended(sequence) and segment.accepted == len(sequence.tokens) - segment.known:
            sequence.tokens.append(self._next_token(sequence))
            turns -= 1

    def _finish(self, sequence: Sequence) -> None:
        if self._has_ended(sequence):
            self.scheduler.finish(sequence)
            self.finished.append(sequence)

    def _has_ended(self, sequence: Sequence) -> bool:
        ended = sequence.output_length > 0 and sequence.tokens[-1] == END
        return ended or sequence.output_length >= sequence.max_new_tokens

    def _next_token(self, sequence: Sequence) -> int:
        if answer := self._answers.get(sequence):
            return answer[sequence.output_length]
        return next_token(int(self._expected(sequence, len(sequence.tokens))[-1]))

    def _expected(self, sequence: Sequence, stop: int) -> np.ndarray:
        """The hashes of a sequence's first `stop` contexts."""
        known = self._hashes.get(sequence, np.empty(0, dtype=np.int64))
        if len(known) < stop:
            fresh = itertools.accumulate(
                sequence.tokens[len(known) :], extended, initial=int(known[-1]) if len(known) else EMPTY
            )
            known = np.concatenate([known, np.array([*fresh][1:], dtype=np.int64)])
            self._hashes[sequence] = known
        return known[:stop]
