"""Who runs next. The scheduler owns the queues, the slot pool, the rows and the prefix tree; it knows no tensors.

Every step, each running sequence is extended by the tokens it has and whose keys and values are not computed yet: one for a
decoding sequence, a chunk for one in prefill, several after a forced jump. A draft lengthens that by tokens that it may get;
the slots of those that it did not get are free again after the step. Retraction gives a sequence's memory back by moving its
computed prefix into the tree; when it is admitted again it goes on from what is still cached.

Invariant, checked by `check_integrity`: free + cached + owned = total, and every slot has one owner.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from .order import Order
from .plan import Plan, Segment
from .pool import Rows, SlotPool
from .radix import RadixTree, common_prefix_length
from .request import Sequence

ESTIMATED_OUTPUT = 4096
"""No running request is expected to need more new tokens than this when room for a new one is estimated."""
DRAFTED_IN_A_STEP = 64
"""Tokens drafted in a step for all requests together: a step of many tokens is bound by arithmetic, and guesses cost time."""
LEAST_CHUNK = 64
"""Prompt tokens in a step that always fit beside the weights, or nothing does."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of a step. `chunk` and `max_prefill` are prompt tokens computed in one step, `adapters_at_once` the
    different ones at work in it, `drafted` the tokens guessed for a request (0: no speculation)."""

    chunk: int
    max_prefill: int
    order: str = "lpm"
    conservativeness: float = 1.0
    share_prefixes: bool = True
    adapters_at_once: int = 8
    drafted: int = 0


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
        self._order = Order(policy.order, self.tree)

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
        for sequence in self._order.sort(self.waiting, self._step):
            if budget <= 0 or not self.rows.free_count:
                break
            if self._prefix_is_on_its_way(sequence):
                continue
            if self._adapters_are_full(sequence) or not self._admit(sequence):
                break
            count = min(sequence.pending, budget)
            drafts = DRAFTED_IN_A_STEP - sum(len(s.draft) for s in segments)
            room = self.pool.free_count + self.tree.evictable - count
            segment = Segment(sequence, sequence.computed, count).with_draft(min(drafts, room))
            segments.append(self._extend(segment))
            admitted.append(sequence)
            cached += sequence.computed
            budget -= count
        return Plan(segments, admitted, cached)

    def computed(self, segment: Segment) -> None:
        """Note that a segment's keys and values are in the pool and what became of its draft; a prompt's become shareable
        at once."""
        sequence = segment.sequence
        in_prefill = sequence.prefilling
        sequence.computed = segment.known + segment.accepted
        self._give_back_rest(sequence)
        if in_prefill and self.policy.share_prefixes and not sequence.poisoned:
            self._share(sequence)

    def out_of_memory(self, plan: Plan) -> bool:
        """Undo a plan that could not be computed, and from now on read prompts in smaller chunks. False if that cannot help."""
        for segment in plan.segments:
            self._give_back_rest(segment.sequence)
        chunk = plan.prefill_tokens // 2
        if chunk < LEAST_CHUNK:
            return False
        self.policy = replace(self.policy, chunk=chunk)
        return True

    def _continue_running(self) -> list[Segment]:
        """Each running sequence's next tokens. One token is free of charge; more than one counts as prefill; drafts have a
        budget of their own."""
        budget, drafts = self._prefill_budget([]), DRAFTED_IN_A_STEP
        wanted = []
        for sequence in self.running:
            count = min(sequence.pending, max(1, budget))
            wanted.append(Segment(sequence, sequence.computed, count).with_draft(drafts))
            budget -= count if sequence.pending > 1 else 0
            drafts -= len(wanted[-1].draft)
        return wanted

    def _prefill_budget(self, segments: list[Segment]) -> int:
        planned = sum(s.known - s.start for s in segments if s.sequence.pending > 1)
        return min(self.policy.chunk, self.policy.max_prefill) - planned

    def _reserve(self, wanted: list[Segment]) -> list[Segment]:
        """Give slots to the running sequences, evicting cached prefixes and, when that is not enough, giving up drafts and
        then retracting."""
        if sum(s.count for s in wanted) > self.pool.free_count + self.tree.evictable:
            wanted = [s.without_draft() for s in wanted]
        while (missing := sum(s.count for s in wanted) - self.pool.free_count) > 0 and self.tree.evict(
            missing
        ) < missing:
            victim = min(self.running[1:], key=lambda s: (s.output_length, -s.arrival))
            self.retract(victim)
            wanted = [s for s in wanted if s.sequence is not victim]
        return [self._extend(s) for s in wanted]

    def _prefix_is_on_its_way(self, sequence: Sequence) -> bool:
        """Whether a running prefill is about to compute more of this prompt than is cached now."""
        if not self.policy.share_prefixes:
            return False
        key, cached = sequence.key(sequence.cacheable), self._order.cached_length(sequence)
        prefills = (other for other in self.running if other.prefilling)
        return any(common_prefix_length(other.key(other.prompt_length), key) > cached for other in prefills)

    def _adapters_are_full(self, sequence: Sequence) -> bool:
        """Whether `sequence` has to wait for its adapter's turn; those behind it wait too, or it might do so for ever."""
        at_work = {other.adapter for other in self.running if other.adapter}
        return (
            bool(sequence.adapter) and sequence.adapter not in at_work and len(at_work) >= self.policy.adapters_at_once
        )

    # -- memory ---------------------------------------------------------------------------------------------------------

    def _admit(self, sequence: Sequence) -> bool:
        """Move a waiting sequence among the running ones if there is room for what it is likely to need."""
        match = self.tree.match(sequence.key(sequence.cacheable if self.policy.share_prefixes else 0))
        self.tree.lock(match.node)
        needed = len(sequence.tokens) - len(match.slots) + self._expected_output(sequence)
        promised = sum(max(0, len(s.tokens) - s.allocated) + self._expected_output(s) for s in self.running)
        if self.running and needed + promised > self.pool.free_count + self.tree.evictable:
            self.tree.unlock(match.node)
            return False
        sequence.row, sequence.node = self.rows.take(), match.node
        sequence.shared = sequence.computed = sequence.allocated = len(match.slots)
        self.rows.table[sequence.row, : sequence.computed] = match.slots
        if sequence.cached_tokens is None:
            sequence.cached_tokens, sequence.admitted_at = sequence.computed, time.monotonic()
        self.waiting.remove(sequence)
        self.running.append(sequence)
        return True

    def _expected_output(self, sequence: Sequence) -> int:
        remaining = min(sequence.max_new_tokens - sequence.output_length, ESTIMATED_OUTPUT)
        return int(remaining * self._output_share)

    def _extend(self, segment: Segment) -> Segment:
        sequence, missing = segment.sequence, segment.count - self.pool.free_count
        if missing > 0:
            self.tree.evict(missing)
        sequence.allocated = segment.start + segment.count
        self.rows.table[sequence.row, segment.start : sequence.allocated] = self.pool.alloc(segment.count)
        return segment

    def _give_back_rest(self, sequence: Sequence) -> None:
        """Free the slots that hold nothing of the sequence's."""
        if sequence.allocated > sequence.computed:
            self.pool.free(self.rows.table[sequence.row, sequence.computed : sequence.allocated])
            sequence.allocated = sequence.computed

    def retract(self, sequence: Sequence) -> None:
        """Take a running sequence's memory back and queue it first; its tokens stay, its cached prefix may."""
        self.running.remove(sequence)
        self._release(sequence)
        sequence.retractions += 1
        self._output_share = min(1.0, self._output_share + 0.2)
        self.waiting.appendleft(sequence)

    def _release(self, sequence: Sequence) -> None:
        if self.policy.share_prefixes and not sequence.poisoned:
            self._share(sequence)
        self.pool.free(self.rows.table[sequence.row, sequence.shared : sequence.allocated])
        assert sequence.node is not None
        self.tree.unlock(sequence.node)
        if sequence.poisoned:
            self.tree.forget(sequence.node)
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
