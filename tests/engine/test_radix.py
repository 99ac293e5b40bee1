"""The prefix cache and the slot pool against a plain model: a dictionary from prefixes to slots."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kernel_engine.pool import SlotPool
from kernel_engine.radix import Node, RadixTree

from .support import examples

SLOTS = 40
TEXTS = st.lists(st.integers(0, 1), min_size=0, max_size=7).map(tuple)
Text = tuple[int, ...]


def key(text: Text) -> np.ndarray:
    return np.array(text, dtype=np.int64)


def prefixes(text: Text) -> list[Text]:
    return [text[: i + 1] for i in range(len(text))]


def spelled(node: Node) -> Text:
    return tuple(int(token) for part in reversed([n.tokens for n in node.path()]) for token in part)


class PrefixCache(RuleBasedStateMachine):
    """`cached` maps every cached prefix to the slot of its last token; `locked` are the texts that are read now."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = SlotPool(SLOTS)
        self.released: list[int] = []
        self.tree = RadixTree(self.release)
        self.cached: dict[Text, int] = {}
        self.locked: list[tuple[Text, Node]] = []
        self.owned: list[np.ndarray] = []

    def release(self, slots: np.ndarray) -> None:
        self.released += slots.tolist()
        self.pool.free(slots)

    def longest(self, text: Text) -> Text:
        return max((p for p in prefixes(text) if p in self.cached), key=len, default=())

    @rule(text=TEXTS)
    def insert(self, text: Text):
        missing = len(text) - self.pool.free_count
        if missing > 0 and self._evict(missing) < missing:
            return
        slots = self.pool.alloc(len(text))
        known = len(self.longest(text))
        version = self.tree.version
        node, present = self.tree.insert(key(text), slots)
        assert (present, spelled(node)) == (known, text)
        assert (self.tree.version != version) == (present < len(text))
        self.pool.free(slots[:present])
        self.cached |= dict(zip(prefixes(text)[present:], slots[present:].tolist(), strict=True))

    @rule(text=TEXTS)
    def match(self, text: Text):
        wanted = self.longest(text)
        assert self.tree.match_length(key(text)) == len(wanted)
        found = self.tree.match(key(text))
        assert found.slots.tolist() == [self.cached[p] for p in prefixes(wanted)]
        assert spelled(found.node) == wanted

    @rule(text=TEXTS)
    def lock(self, text: Text):
        found = self.tree.match(key(text))
        self.tree.lock(found.node)
        self.locked.append((spelled(found.node), found.node))

    @precondition(lambda self: self.locked)
    @rule(data=st.data())
    def unlock(self, data: st.DataObject):
        _, node = self.locked.pop(data.draw(st.integers(0, len(self.locked) - 1)))
        self.tree.unlock(node)

    @rule(count=st.integers(1, 12))
    def evict(self, count: int):
        self._evict(count)

    def _evict(self, count: int) -> int:
        evictable, before = self.tree.evictable, self.tree.size
        self.released.clear()
        evicted = self.tree.evict(count)
        assert evicted == len(self.released) == before - self.tree.size
        assert evicted >= min(count, evictable)
        gone = set(self.released)
        self.cached = {text: slot for text, slot in self.cached.items() if slot not in gone}
        assert all(text[:-1] in self.cached for text in self.cached if len(text) > 1), "a hole in a prefix"
        return evicted

    @rule(count=st.integers(1, 8))
    def own(self, count: int):
        if count <= self.pool.free_count:
            self.owned.append(self.pool.alloc(count))

    @precondition(lambda self: self.owned)
    @rule()
    def disown(self):
        self.pool.free(self.owned.pop())

    @invariant()
    def every_slot_has_one_owner(self):
        slots = itertools.chain(self.pool.free_slots(), *(n.slots for n in self.tree.nodes()), *self.owned)
        assert sorted(slots) == list(range(1, SLOTS + 1))
        assert self.tree.size == len(self.cached)

    @invariant()
    def locked_text_stays_cached_and_its_lockers_are_counted(self):
        for text, _ in self.locked:
            assert all(prefix in self.cached for prefix in prefixes(text))
        for node in self.tree.nodes():
            end = spelled(node)
            assert node.locks == sum(text[: len(end)] == end for text, _ in self.locked)
        assert self.tree.protected == len({p for text, _ in self.locked for p in prefixes(text)})


PrefixCache.TestCase.settings = examples(80)
TestPrefixCache = PrefixCache.TestCase


def test_the_least_recently_used_leaf_goes_first():
    pool = SlotPool(12)
    tree = RadixTree(pool.free)
    for text in ((1, 1, 1), (2, 2, 2), (3, 3, 3)):
        tree.insert(key(text), pool.alloc(3))
    tree.match(key((1, 1, 1)))
    assert tree.evict(1) == 3
    assert [tree.match_length(key((n, n, n))) for n in (1, 2, 3)] == [3, 0, 3]


def test_a_shared_stem_outlives_its_branches():
    pool = SlotPool(12)
    tree = RadixTree(pool.free)
    for text in ((1, 1, 2), (1, 1, 3)):
        _, present = tree.insert(key(text), slots := pool.alloc(3))
        pool.free(slots[:present])
    assert tree.evict(2) == 2
    assert tree.match_length(key((1, 1, 2))) == 2
    assert tree.evict(1) == 2
    assert (tree.size, pool.free_count) == (0, 12)


def test_a_match_that_ends_inside_a_node_goes_no_further():
    pool = SlotPool(12)
    tree = RadixTree(pool.free)
    tree.insert(key((1, 1, 2)), pool.alloc(3))
    tree.insert(key((1, 1, 2, 5)), slots := pool.alloc(4))
    pool.free(slots[:3])
    assert tree.match_length(key((1, 5))) == 1
    assert tree.match(key((1, 5))).slots.tolist() == tree.match(key((1,))).slots.tolist()
