"""Who runs next. The scheduler owns the queues, the slot pool, the rows and the prefix tree; it knows no tensors.

Every step, each running sequence is extended by the tokens it has and whose keys and values are not computed yet: one for a
decoding sequence, a chunk for one in prefill, several after a forced jump. Retraction gives a sequence's memory back by
moving its computed prefix into the tree; when it is admitted again it goes on from what is still cached.

Invariant, checked by `check_integrity`: free + cached + owned = total, and every slot has one owner.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

import numpy as np

from .pool import Rows, SlotPool
from .radix import RadixTree, common_prefix_length
from .request import Sequence

LONGEST_PREFIX_QUEUE = 128
"""A longer queue is served first come, first served: matching every waiting request each step would cost too much."""
PATIENCE = 256
"""Steps after which a waiting request is no longer overtaken by ones with longer cached prefixes."""
ESTIMATED_OUTPUT = 4096
"""No running request is expected to need more new tokens than this when room for a new one is estimated."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of a step. `chunk` and `max_prefill` are prompt tokens computed in one step."""

    chunk: int
    max_prefill: int
    order: str = "lpm"
    conservativeness: float = 1.0
    share_prefixes: bool = True


@dataclass(frozen=True, slots=True)
class Segment:
    """`sequence` is extended by `count` tokens from position `start` on."""

    sequence: Sequence
    start: int
    count: int

    @property
    def completes(self) -> bool:
        """Whether the next token can be sampled after this step."""
        return self.start + self.count == len(self.sequence.tokens)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step. `admitted` sequences are new in it, `cached` of their tokens came from the tree."""

    segments: list[Segment]
    admitted: list[Sequence]
    cached: int

    @property
    def prefill_tokens(self) -> int:
        return sum(s.count for s in self.segments if s.start < s.sequence.prompt_length)


class Scheduler:
    def __init__(self, slots: int, rows: int, context: int, policy: Policy):
        self.pool = SlotPool(slots)
        self.rows = Rows(rows, context)
        self.tree = RadixTree(release=self.pool.free)
        self.policy = policy
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self._step = 0
        self._output_share = min(1.0, 0.7 * policy.conservativeness)
        self._random = random.Random(0)

    # -- intake and exit ------------------------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        sequence.arrival = self._step
        self.waiting.append(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is. What it computed stays cached."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        else:
            self.waiting.remove(sequence)

    def flush(self) -> bool:
        """Empty the prefix cache; False if requests are under way."""
        if self.running or self.waiting:
            return False
        self.tree.evict(self.tree.size)
        return True

    # -- planning -------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Choose what the next step computes and give it slots. The plan is empty only if nothing is running or waiting."""
        self._step += 1
        self._output_share = max(0.1, self._output_share - 1e-3)
        segments = self._reserve(self._continue_running())
        budget = self._prefill_budget(segments)
        admitted, cached = [], 0
        for sequence in self._waiting_in_order():
            if budget <= 0 or not self.rows.free_count:
                break
            if self._prefix_is_on_its_way(sequence):
                continue
            if not self._admit(sequence):
                break
            count = min(sequence.pending, budget)
            segments.append(self._extend(sequence, count))
            admitted.append(sequence)
            cached += sequence.computed
            budget -= count
        return Plan(segments, admitted, cached)

    def computed(self, segment: Segment) -> None:
        """Note that a segment's keys and values are in the pool; a prompt's become shareable at once."""
        sequence = segment.sequence
        in_prefill = sequence.prefilling
        sequence.computed = segment.start + segment.count
        if in_prefill and self.policy.share_prefixes:
            self._share(sequence)

    def _continue_running(self) -> list[Segment]:
        """Each running sequence's next tokens. One token is free of charge; more than one counts as prefill."""
        budget = self._prefill_budget([])
        wanted = []
        for sequence in self.running:
            count = min(sequence.pending, max(1, budget))
            wanted.append(Segment(sequence, sequence.computed, count))
            budget -= count if sequence.pending > 1 else 0
        return wanted

    def _prefill_budget(self, segments: list[Segment]) -> int:
        planned = sum(s.count for s in segments if s.sequence.pending > 1)
        return min(self.policy.chunk, self.policy.max_prefill) - planned

    def _reserve(self, wanted: list[Segment]) -> list[Segment]:
        """Give slots to the running sequences, evicting cached prefixes and, when that is not enough, retracting."""
        while (missing := sum(s.count for s in wanted) - self.pool.free_count) > 0 and self.tree.evict(
            missing
        ) < missing:
            victim = min(self.running[1:], key=lambda s: (s.output_length, -s.arrival))
            self.retract(victim)
            wanted = [s for s in wanted if s.sequence is not victim]
        return [self._extend(s.sequence, s.count) for s in wanted]

    def _waiting_in_order(self) -> list[Sequence]:
        waiting = list(self.waiting)
        if self.policy.order == "random":
            self._random.shuffle(waiting)
        by_prefix = self.policy.order == "lpm" and self.policy.share_prefixes and len(waiting) <= LONGEST_PREFIX_QUEUE

        def precedence(sequence: Sequence) -> tuple[int, bool, int]:
            impatient = self._step - sequence.arrival > PATIENCE
            prefix = self._cached_length(sequence) if by_prefix and not impatient else 0
            return (-sequence.request.priority, not impatient, -prefix)

        return sorted(waiting, key=precedence)

    def _cached_length(self, sequence: Sequence) -> int:
        if sequence.known_match[0] != self.tree.version:
            length = self.tree.match_length(sequence.key(sequence.cacheable))
            sequence.known_match = (self.tree.version, length)
        return sequence.known_match[1]

    def _prefix_is_on_its_way(self, sequence: Sequence) -> bool:
        """Whether a running prefill is about to compute more of this prompt than is cached now."""
        if not self.policy.share_prefixes:
            return False
        key, cached = sequence.key(sequence.cacheable), self._cached_length(sequence)
        prefills = (other for other in self.running if other.prefilling)
        return any(common_prefix_length(other.key(other.prompt_length), key) > cached for other in prefills)

    # -- memory ---------------------------------------------------------------------------------------------------------

    def _admit(self, sequence: Sequence) -> bool:
        """Move a waiting sequence among the running ones if there is room for what it is likely to need."""
        match = self.tree.match(sequence.key(sequence.cacheable if self.policy.share_prefixes else 0))
        self.tree.lock(match.node)
        needed = len(sequence.tokens) - len(match.slots) + self._expected_output(sequence)
        promised = sum(len(s.tokens) - s.allocated + self._expected_output(s) for s in self.running)
        if self.running and needed + promised > self.pool.free_count + self.tree.evictable:
            self.tree.unlock(match.node)
            return False
        sequence.row, sequence.node = self.rows.take(), match.node
        sequence.shared = sequence.computed = sequence.allocated = len(match.slots)
        self.rows.table[sequence.row, : sequence.computed] = match.slots
        if sequence.cached_tokens is None:
            sequence.cached_tokens = sequence.computed
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

    def _expected_output(self, sequence: Sequence) -> int:
        remaining = min(sequence.max_new_tokens - sequence.output_length, ESTIMATED_OUTPUT)
        return int(remaining * self._output_share)

    def _extend(self, sequence: Sequence, count: int) -> Segment:
        missing = count - self.pool.free_count
        if missing > 0:
            self.tree.evict(missing)
        sequence.allocated = sequence.computed + count
        self.rows.table[sequence.row, sequence.computed : sequence.allocated] = self.pool.alloc(count)
        return Segment(sequence, sequence.computed, count)

    def retract(self, sequence: Sequence) -> None:
        """Take a running sequence's memory back and queue it first; its tokens stay, its cached prefix may."""
        self.running.remove(sequence)
        self._release(sequence)
        sequence.retractions += 1
        self._output_share = min(1.0, self._output_share + 0.2)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        if self.policy.share_prefixes:
            self._share(sequence)
        self.pool.free(self.rows.table[sequence.row, sequence.shared : sequence.allocated])
        assert sequence.node is not None
        self.tree.unlock(sequence.node)
        self.rows.give_back(sequence.row)
        sequence.row, sequence.node = -1, None
        sequence.shared = sequence.computed = sequence.allocated = 0

    def _share(self, sequence: Sequence) -> None:
        """Hand the sequence's computed tokens to the tree and read them from there.

        slots   | shared: the tree's already | present: computed elsewhere meanwhile, ours are freed | new: become the tree's |
        """
        assert sequence.node is not None
        row = self.rows.table[sequence.row]
        key = sequence.key(sequence.computed)
        node, present = self.tree.insert(key, row[: sequence.computed])
        if present > sequence.shared:
            self.pool.free(row[sequence.shared : present])
            row[:present] = self.tree.match(key[:present]).slots
        self.tree.lock(node)
        self.tree.unlock(sequence.node)
        sequence.node, sequence.shared = node, sequence.computed

    # -- accounting -----------------------------------------------------------------------------------------------------

    @property
    def used(self) -> int:
        """Slots that cannot be had without ending or retracting a request."""
        return self.pool.size - self.pool.free_count - self.tree.evictable

    def check_integrity(self) -> None:
        """Raise `RuntimeError` unless every slot has exactly one owner and the tree's counts are true."""
        owned = [self.rows.table[s.row, s.shared : s.allocated] for s in self.running]
        cached = [node.slots for node in self.tree.nodes()]
        everything = np.sort(np.concatenate([self.pool.free_slots(), *owned, *cached]))
        if not np.array_equal(everything, np.arange(1, self.pool.size + 1)):
            raise RuntimeError(
                f"KV slots do not add up: {self.pool.free_count} free, {sum(map(len, cached))} cached, "
                f"{sum(map(len, owned))} owned, {self.pool.size} in all"
            )
        protected = sum(len(n.tokens) for n in self.tree.nodes() if n.locks)
        if (self.tree.size, self.tree.protected) != (sum(map(len, cached)), protected):
            raise RuntimeError("the prefix tree's counts of cached and protected tokens are not true")
        if self.rows.free_count + len(self.running) != len(self.rows.table):
            raise RuntimeError("a row is neither free nor held by a running sequence")
