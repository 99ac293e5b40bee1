"""Where keys and values live: numbered slots, and for each running sequence the row of slots that holds its context.

Invariant: every slot is free, or owned by the radix tree, or owned by exactly one running sequence. Slot 0 is nobody's: it
takes the writes of padding tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Slots = np.ndarray
"""A vector of slot numbers, int32."""


class SlotPool:
    """The free slots among `1..size`, as a stack."""

    def __init__(self, size: int):
        self.size = size
        self._stack = np.arange(size, 0, -1, dtype=np.int32)
        self._free = size

    @property
    def free_count(self) -> int:
        return self._free

    def alloc(self, count: int) -> Slots:
        if count > self._free:
            raise RuntimeError(f"the KV pool has {self._free} free slots, {count} were asked for")
        self._free -= count
        return self._stack[self._free : self._free + count].copy()

    def free(self, slots: Slots) -> None:
        self._stack[self._free : self._free + len(slots)] = slots
        self._free += len(slots)

    def free_slots(self) -> Slots:
        """All free slots, in no particular order; for integrity checks."""
        return self._stack[: self._free].copy()


class Rows:
    """`table[row, position]` is the slot that holds the key and value of the row's token at `position`."""

    def __init__(self, rows: int, context: int):
        self.table = np.zeros((rows, context), dtype=np.int32)
        self._free = list(range(rows - 1, -1, -1))

    @property
    def free_count(self) -> int:
        return len(self._free)

    def take(self) -> int:
        return self._free.pop()

    def give_back(self, row: int) -> None:
        self._free.append(row)


class KVCache:
    """Keys and values of every layer: two tensors `[slots + 1, kv_heads, head_dim]` a layer.

    `dtype` may be narrower than what the model computes in: what is stored is rounded to it, and cut to its range.
    """

    def __init__(self, layers: int, slots: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device):
        shape = (layers, slots + 1, kv_heads, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def store(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write `[tokens, kv_heads, head_dim]` at `slots` and return the layer's whole key and value tensors."""
        layer_keys, layer_values = self.keys[layer], self.values[layer]
        _scatter(layer_keys, slots, keys)
        _scatter(layer_values, slots, values)
        return layer_keys, layer_values

    @staticmethod
    def bytes_per_token(layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        return 2 * layers * kv_heads * head_dim * dtype.itemsize


def gather(stored: Tensor, slots: Tensor, dtype: torch.dtype) -> Tensor:
    """What lies at `slots` of a layer's keys or values, as `dtype`: `[len(slots), kv_heads, head_dim]`."""
    found = _indexable(stored).index_select(0, slots)
    return found if found.dtype == dtype else found.view(stored.dtype).to(dtype)


def _scatter(stored: Tensor, slots: Tensor, new: Tensor) -> None:
    if new.dtype != stored.dtype:
        limit = min(torch.finfo(stored.dtype).max, torch.finfo(new.dtype).max)
        new = new.clamp(-limit, limit).to(stored.dtype)
    _indexable(stored).index_copy_(0, slots, _indexable(new))


def _indexable(tensor: Tensor) -> Tensor:
    """fp8 as bytes: as numbers, not every device can copy them by index."""
    return tensor.view(torch.uint8) if tensor.dtype.itemsize == 1 else tensor
