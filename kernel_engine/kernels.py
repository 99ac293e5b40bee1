"""Triton kernels. They are imported on a GPU only; the tests run them in Triton's interpreter.

Attention of one query token at a time over the KV pool, split along the context so that few long sequences still fill the
GPU ("Flash-Decoding", Dao et al. 2023): each program attends one token's heads that share a key head to one part of the
context, and a second kernel weighs the parts by their share of the softmax.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false
# (Triton's types are those of the code inside a kernel.)

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64
"""Context tokens that a program reads at once."""
MIN_ROWS = 16
"""The least number of rows that a GPU's matrix units multiply; fewer query heads are padded."""
MAX_SPLITS = 32


def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    lengths: Tensor,
    scaling: float,
    *,
    window: int | None = None,
    softcap: float | None = None,
    splits: int | None = None,
) -> Tensor:
    """`query` [tokens, heads, dim] -> [tokens, heads, dim]; token i sees `slots[i, :lengths[i]]` of the pool.

    `keys`, `values` [pool, kv_heads, dim]; `slots` [tokens, at least the longest length] int32; `lengths` [tokens] int32, at
    least 1. With a `window` only that many last tokens are seen; `softcap` bounds the scores. `splits`, the parts of a
    context, is chosen for the GPU by default. Safe to capture in a CUDA graph: nothing depends on the lengths' values.
    """
    tokens, heads, dim = query.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    splits = splits or _splits(tokens * kv_heads, query.device)
    parts = torch.empty((tokens, heads, splits, dim), dtype=torch.float32, device=query.device)
    shares = torch.empty((tokens, heads, splits), dtype=torch.float32, device=query.device)
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    _attend_part[(tokens, kv_heads, splits)](
        query, keys, values, slots, lengths, parts, shares,
        scaling, softcap or 0.0, window or 0,
        query.stride(0), query.stride(1), keys.stride(0), keys.stride(1), slots.stride(0),
        group, dim, splits,
        ROWS=max(MIN_ROWS, triton.next_power_of_2(group)), DIM=triton.next_power_of_2(dim), BLOCK=BLOCK,
    )  # fmt: skip
    _combine[(tokens, heads)](
        parts, shares, output, dim, splits,
        DIM=triton.next_power_of_2(dim), SPLITS=triton.next_power_of_2(splits),
    )  # fmt: skip
    return output


def _splits(programs: int, device: torch.device) -> int:
    """Parts enough for two programs on each multiprocessor."""
    if device.type != "cuda":
        return 1
    wanted = 2 * torch.cuda.get_device_properties(device).multi_processor_count // programs
    return min(MAX_SPLITS, max(1, triton.next_power_of_2(wanted)))


@triton.jit
def _attend_part(
    query, keys, values, slots, lengths, parts, shares,
    scaling, softcap, window,
    query_token, query_head, pool_slot, pool_head, slots_token,
    group, dim, splits,
    ROWS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One part of one token's context, for the query heads of one key head: weighted values, and the log of their weight."""
    token, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row, column = tl.arange(0, ROWS), tl.arange(0, DIM)
    head = kv_head * group + row
    in_query = (row < group)[:, None] & (column < dim)[None, :]
    q = tl.load(query + token * query_token + head[:, None] * query_head + column[None, :], mask=in_query, other=0.0)

    length = tl.load(lengths + token)
    first = tl.where(window > 0, tl.maximum(length - window, 0), 0)
    size = tl.cdiv(tl.cdiv(length - first, splits), BLOCK) * BLOCK
    begin = first + split * size
    end = tl.minimum(begin + size, length)

    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    result = tl.zeros([ROWS, DIM], tl.float32)
    for start in range(begin, end, BLOCK):
        position = start + tl.arange(0, BLOCK)
        seen = position < end
        slot = tl.load(slots + token * slots_token + position, mask=seen, other=0).to(tl.int64)
        where = slot[:, None] * pool_slot + kv_head * pool_head + column[None, :]
        in_pool = seen[:, None] & (column < dim)[None, :]
        k = tl.load(keys + where, mask=in_pool, other=0.0).to(q.dtype)
        score = tl.dot(q, tl.trans(k), input_precision="ieee") * scaling
        if softcap > 0:
            score = softcap * (2 * tl.sigmoid(2 * score / softcap) - 1)  # tanh
        score = tl.where(seen[None, :], score, float("-inf"))
        peak = tl.maximum(best, tl.max(score, 1))
        weight = tl.exp(score - peak[:, None])
        fade = tl.exp(best - peak)
        v = tl.load(values + where, mask=in_pool, other=0.0).to(q.dtype)
        result = result * fade[:, None] + tl.dot(weight.to(q.dtype), v, input_precision="ieee")
        total = total * fade + tl.sum(weight, 1)
        best = peak

    at = (token * tl.num_programs(1) * group + head) * splits + split
    normal = tl.where(total > 0, total, 1.0)
    tl.store(parts + at[:, None] * dim + column[None, :], result / normal[:, None], mask=in_query)
    share = tl.where(total > 0, best + tl.log(normal), float("-inf"))
    tl.store(shares + at, share, mask=row < group)


@triton.jit
def _combine(parts, shares, output, dim, splits, DIM: tl.constexpr, SPLITS: tl.constexpr):
    """The mean of one head's parts, each weighted by its share of the softmax's sum."""
    at = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    split, column = tl.arange(0, SPLITS), tl.arange(0, DIM)
    share = tl.load(shares + at * splits + split, mask=split < splits, other=float("-inf"))
    weight = tl.exp(share - tl.max(share, 0))
    in_parts = (split < splits)[:, None] & (column < dim)[None, :]
    part = tl.load(parts + (at * splits + split)[:, None] * dim + column[None, :], mask=in_parts, other=0.0)
    mean = tl.sum(part * weight[:, None], 0) / tl.sum(weight, 0)
    tl.store(output + at * dim + column, mean.to(output.dtype.element_ty), mask=column < dim)
