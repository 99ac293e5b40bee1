"""The prefix cache: a radix tree over token ids whose edges own the KV slots of the tokens they spell.

Invariants: the tokens on a path from the root spell a prefix that was computed; each node's slots are owned by that node
alone; a node's lock count is the number of running sequences that read its slots, so no ancestor of a locked node is
unlocked, and locked nodes are never evicted. Source of the idea: RadixAttention (SGLang, arXiv 2312.07104).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .pool import Slots

Tokens = np.ndarray
"""A vector of token ids, int64 (ids beyond the vocabulary stand for image content)."""


@dataclass(eq=False, slots=True)
class Node:
    """One edge of the tree: `tokens[i]` has its key and value in slot `slots[i]`."""

    tokens: Tokens
    slots: Slots
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)
    locks: int = 0
    last_used: int = 0

    def path(self) -> Iterator[Node]:
        """This node and its ancestors, without the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


@dataclass(frozen=True, slots=True)
class Match:
    """The longest cached prefix: it ends at `node`, and `slots` hold its tokens in order."""

    node: Node
    slots: Slots


class RadixTree:
    """`size` tokens are cached, `protected` of them are locked; the rest can be evicted, least recently used leaf first."""

    def __init__(self, release: Callable[[Slots], None]):
        self._release = release
        self._clock = 0
        self.root = Node(np.empty(0, np.int64), np.empty(0, np.int32), None)
        self.size = 0
        self.protected = 0
        self.version = 0
        """Changes whenever the result of a match may have changed."""

    @property
    def evictable(self) -> int:
        return self.size - self.protected

    def match_length(self, tokens: Tokens) -> int:
        """Length of the longest cached prefix of `tokens`; leaves the tree as it is."""
        return sum(common for _, common in self._passed(tokens))

    def passed(self, tokens: Tokens) -> list[Node]:
        """The nodes that spell it, from the root on, the last perhaps in part; leaves the tree as it is."""
        return [node for node, _ in self._passed(tokens)]

    def _passed(self, tokens: Tokens) -> Iterator[tuple[Node, int]]:
        node, length = self.root, 0
        while length < len(tokens) and (child := node.children.get(int(tokens[length]))):
            common = common_prefix_length(child.tokens, tokens[length:])
            yield child, common
            if common < len(child.tokens):
                break
            node, length = child, length + common

    def match(self, tokens: Tokens) -> Match:
        """The longest cached prefix of `tokens`, marked as used now. A node that matches in part is split."""
        node, _, parts = self._descend(tokens)
        return Match(node, np.concatenate(parts) if parts else np.empty(0, np.int32))

    def insert(self, tokens: Tokens, slots: Slots) -> tuple[Node, int]:
        """Cache `tokens`. Returns the node they end at and how many were cached before.

        The tree takes over `slots[present:]`; `slots[:present]` stay the caller's.
        """
        node, present, _ = self._descend(tokens)
        if present < len(tokens):
            leaf = Node(tokens[present:].copy(), slots[present:].copy(), node, last_used=self._clock)
            node.children[int(tokens[present])] = leaf
            self.size += len(leaf.tokens)
            self.version += 1
            node = leaf
        return node, present

    def lock(self, node: Node) -> None:
        for each in node.path():
            self.protected += len(each.tokens) if each.locks == 0 else 0
            each.locks += 1

    def unlock(self, node: Node) -> None:
        for each in node.path():
            each.locks -= 1
            self.protected -= len(each.tokens) if each.locks == 0 else 0

    def evict(self, count: int) -> int:
        """Release at least `count` slots if that many can be evicted; returns how many were."""
        leaves = [(n.last_used, id(n), n) for n in self.nodes() if not n.children and not n.locks]
        heapq.heapify(leaves)
        evicted = 0
        while leaves and evicted < count:
            _, _, leaf = heapq.heappop(leaves)
            evicted += len(leaf.tokens)
            parent = self._remove(leaf)
            if parent is not self.root and not parent.children and not parent.locks:
                heapq.heappush(leaves, (parent.last_used, id(parent), parent))
        return evicted

    def forget(self, node: Node) -> None:
        """Release what ends at `node` and no one else uses, back towards the root."""
        while node is not self.root and not node.children and not node.locks:
            node = self._remove(node)

    def nodes(self) -> Iterator[Node]:
        """Every node but the root, in no particular order."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            stack.extend(node.children.values())
            yield node

    def _descend(self, tokens: Tokens) -> tuple[Node, int, list[Slots]]:
        self._clock += 1
        node, length, parts = self.root, 0, []
        while length < len(tokens) and (child := node.children.get(int(tokens[length]))):
            common = common_prefix_length(child.tokens, tokens[length:])
            node = child if common == len(child.tokens) else self._split(child, common)
            node.last_used = self._clock
            parts.append(node.slots)
            length += common
            if node is not child:
                break
        return node, length, parts

    def _split(self, node: Node, at: int) -> Node:
        """Put a new parent over `node` that takes its first `at` tokens and all its lockers."""
        assert node.parent is not None
        upper = Node(node.tokens[:at], node.slots[:at], node.parent, locks=node.locks, last_used=node.last_used)
        upper.children[int(node.tokens[at])] = node
        node.parent.children[int(node.tokens[0])] = upper
        node.parent, node.tokens, node.slots = upper, node.tokens[at:], node.slots[at:]
        return upper

    def _remove(self, leaf: Node) -> Node:
        assert leaf.parent is not None
        del leaf.parent.children[int(leaf.tokens[0])]
        self.size -= len(leaf.tokens)
        self.version += 1
        self._release(leaf.slots)
        return leaf.parent


def common_prefix_length(a: Tokens, b: Tokens) -> int:
    """How many leading tokens `a` and `b` share."""
    shorter = min(len(a), len(b))
    differs = a[:shorter] != b[:shorter]
    return int(differs.argmax()) if differs.any() else shorter
