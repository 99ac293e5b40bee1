"""Which waiting request is next: SGLang's schedule policies.

Whatever the policy, a request of higher priority comes first, and after it one that has waited for long; so nobody is
overtaken for ever by requests with longer cached prefixes or longer outputs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable

from .radix import RadixTree
from .request import Sequence

LONGEST_PREFIX_QUEUE = 128
"""A longer queue is served first come, first served: matching every waiting request each step would cost too much."""
PATIENCE = 256
"""Steps after which a waiting request is no longer overtaken by others of its priority that came later."""

Rank = Callable[[Sequence], tuple[float, ...]]


class Order:
    """`policy` is fcfs (first come, first served), random, lpm (longest cached prefix), lof (longest output) or dfs-weight
    (depth first through the prefix tree, at each node to where most requests wait).
    """

    def __init__(self, policy: str, tree: RadixTree):
        self._policy, self._tree = policy, tree
        self._random = random.Random(0)

    def sort(self, waiting: Iterable[Sequence], step: int) -> list[Sequence]:
        """The sequences that wait at `step`, the next one first."""
        waiting = list(waiting)
        rank = self._rank(waiting)

        def precedence(sequence: Sequence) -> tuple[int, bool, tuple[float, ...]]:
            patient = step - sequence.arrival <= PATIENCE
            return -sequence.request.priority, patient, rank(sequence) if patient else ()

        return sorted(waiting, key=precedence)

    def cached_length(self, sequence: Sequence) -> int:
        """How much of a waiting sequence is cached."""
        if sequence.known_match[0] != self._tree.version:
            length = self._tree.match_length(sequence.key(sequence.cacheable))
            sequence.known_match = (self._tree.version, length)
        return sequence.known_match[1]

    def _rank(self, waiting: list[Sequence]) -> Rank:
        few = len(waiting) <= LONGEST_PREFIX_QUEUE
        if self._policy == "random":
            return lambda sequence: (self._random.random(),)
        if self._policy == "lof":
            return lambda sequence: (-sequence.max_new_tokens,)
        if self._policy == "lpm" and few:
            return lambda sequence: (-self.cached_length(sequence),)
        if self._policy == "dfs-weight" and few:
            return self._depth_first(waiting)
        return lambda sequence: ()

    def _depth_first(self, waiting: list[Sequence]) -> Rank:
        """At every node, the child in whose subtree most requests wait comes first; of two equal ones, that of who came first."""
        paths = {sequence: self._tree.passed(sequence.key(sequence.cacheable)) for sequence in waiting}
        weights = Counter(node for path in paths.values() for node in path)
        came = {node: number for number, node in enumerate(weights)}
        return lambda sequence: tuple(part for node in paths[sequence] for part in (-weights[node], came[node]))
