"""Attention over the KV pool, as an implementation of transformers' AttentionInterface.

A model that runs with `attn_implementation="kernel_engine"` and gets `batch=` and `cache=` stores the new keys and values in
the pool and attends each query token to its own sequence's context there. Causality comes from the batch's layout; the
mask that transformers would build is None for this implementation.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .batch import Batch, Decodes, Extend, Queries
from .pool import KVCache, gather

IMPLEMENTATION = "kernel_engine"


@dataclass(frozen=True, slots=True)
class Scores:
    """How a layer's scores come from query and key: scaled (None: by the root of the head's size), then capped."""

    scaling: float | None
    softcap: float | None


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    batch: Batch,
    cache: KVCache,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """`query` [1, heads, tokens, dim] and `key`, `value` [1, kv_heads, tokens, dim] -> [1, tokens, heads, dim].

    With a `sliding_window` a token sees so many tokens, its own included. `softcap` bounds the scores before the softmax.
    """
    layer: int = module.layer_idx  # pyright: ignore[reportAssignmentType]
    keys, values = cache.store(layer, batch.out_slots, key[0].transpose(0, 1), value[0].transpose(0, 1))
    query = query[0].transpose(0, 1)
    scores = Scores(scaling, softcap)
    if batch.queries:
        return _each_token(query, keys, values, batch.queries, sliding_window, scores)[None], None
    view = batch.views[sliding_window]
    outputs = [_decode(query[d.begin : d.end], keys, values, d, scores) for d in view.decodes]
    outputs += [_extend(query[e.begin : e.end], keys, values, e, scores) for e in view.extends]
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs))[None], None


def _each_token(
    query: Tensor, keys: Tensor, values: Tensor, queries: Queries, window: int | None, scores: Scores
) -> Tensor:
    """`query` [tokens, heads, dim], each token with a context of its own."""
    if kernel := _kernel(query.device.type):
        scaling = query.shape[-1] ** -0.5 if scores.scaling is None else scores.scaling
        return kernel(
            query, keys, values, queries.slots, queries.lengths, scaling, window=window, softcap=scores.softcap
        )
    position = torch.arange(queries.slots.shape[1], device=query.device)
    mask = position < queries.lengths[:, None]
    if window is not None:
        mask &= position >= queries.lengths[:, None] - window
    context = Decodes(0, len(query), queries.slots * mask, mask[:, None, None, :])
    return _decode(query, keys, values, context, scores)


@functools.cache
def _kernel(device: str) -> Callable[..., Tensor] | None:
    """The attention kernel for this device, if there is one and Triton is installed."""
    if device != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    from .kernels import decode_attention

    return decode_attention


def _decode(query: Tensor, keys: Tensor, values: Tensor, decodes: Decodes, scores: Scores) -> Tensor:
    """`query` [sequences, heads, dim]. The heads that share a key head become the query's length: on CPU that is 12 times
    faster than `enable_gqa`."""
    sequences, longest = decodes.slots.shape
    _, kv_heads, dim = keys.shape
    flat = decodes.slots.view(-1)
    context_keys = gather(keys, flat, query.dtype).view(sequences, longest, kv_heads, dim).transpose(1, 2)
    context_values = gather(values, flat, query.dtype).view(sequences, longest, kv_heads, dim).transpose(1, 2)
    grouped = query.reshape(sequences, kv_heads, -1, dim)
    return _attention(grouped, context_keys, context_values, decodes.mask, scores).reshape(query.shape)


def _extend(query: Tensor, keys: Tensor, values: Tensor, extend: Extend, scores: Scores) -> Tensor:
    """`query` [tokens, heads, dim], of which token i sees the context up to its own position."""
    tokens, heads, dim = query.shape
    context, kv_heads = len(extend.slots), keys.shape[1]
    shared = (kv_heads, heads // kv_heads, context, dim)  # each key head once, seen by every query head of its group
    context_keys = gather(keys, extend.slots, query.dtype).transpose(0, 1)[:, None].expand(shared)
    context_values = gather(values, extend.slots, query.dtype).transpose(0, 1)[:, None].expand(shared)
    mask = None
    if tokens < context or extend.window is not None:
        mask = torch.ones(tokens, context, dtype=torch.bool, device=query.device).tril(context - tokens)
        if extend.window is not None:
            mask = mask.triu(context - tokens - extend.window + 1)
    grouped = query.view(tokens, kv_heads, -1, dim).permute(1, 2, 0, 3)
    output = _attention(grouped, context_keys, context_values, mask, scores)
    return output.permute(2, 0, 1, 3).reshape(query.shape)


def _attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scores: Scores) -> Tensor:
    """`query` [..., length, dim] on `keys`, `values` [..., context, dim]; `mask` is true where it sees, None means causal."""
    if scores.softcap is None:
        return F.scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, is_causal=mask is None, scale=scores.scaling
        )
    if mask is None:
        mask = torch.ones(query.shape[-2], keys.shape[-2], dtype=torch.bool, device=query.device).tril()
    scaling = query.shape[-1] ** -0.5 if scores.scaling is None else scores.scaling
    raw = query @ keys.transpose(-1, -2) * scaling
    capped = scores.softcap * torch.tanh(raw / scores.softcap)
    weights = capped.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32)
    return weights.to(query.dtype) @ values


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attend)
