"""The forward pass for training: the Hugging Face modules' weights, whole batches of images of one grid at a time.

Hugging Face's forward runs attention image by image, and the patches through a convolution in three dimensions. Here all
images share a grid, every vision block has full attention, and both frames of a patch are the same picture.
Invariant: equal to Hugging Face's forward up to rounding, as tests/unit/test_tiny_vision_data.py checks.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.vision.patches import MERGE, Grid


@cache
def vision_positions(grid: Grid, head: int) -> tuple[Tensor, Tensor]:
    """cos and sin [patches, head] of the rotary angles, patches in the order of cells."""
    rows, columns = torch.meshgrid(torch.arange(grid[0] * MERGE), torch.arange(grid[1] * MERGE), indexing="ij")
    blocks = (grid[0], MERGE, grid[1], MERGE)
    places = [p.view(blocks).transpose(1, 2).flatten().float() for p in (rows, columns)]
    frequencies = 1.0 / (10_000.0 ** (torch.arange(0, head // 2, 2).float() / (head // 2)))
    angles = torch.cat([p[:, None] * frequencies for p in places], dim=-1)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def text_positions(places: Tensor, head: int, sections: list[int]) -> tuple[Tensor, Tensor]:
    """cos and sin [rows, 1, length, head] for positions [3, rows, length]: time, height and width share the angles."""
    frequencies = 1.0 / (10_000.0 ** (torch.arange(0, head, 2).float() / head))
    angles = places[..., None].float() * frequencies
    parts = [part[i % 3] for i, part in enumerate(angles.split(sections, dim=-1))]
    angles = torch.cat([*parts, *parts], dim=-1)[:, None]
    return angles.cos(), angles.sin()


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), 1e-6)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, seen: list[Tensor] | None = None) -> Tensor:
    """Attention as two products: on this size several times as fast on a CPU as the fused one, most of all backward."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    shares = F.softmax(scores, -1, dtype=scores.dtype)
    if seen is not None:
        seen.append(shares)
    return shares @ v


def vision_block(block: Any, x: Tensor, cosine: Tensor, sine: Tensor, heads: int) -> Tensor:
    rows, length, width = x.shape
    normed = norm(x, block.norm1.weight)
    qkv = block.attn.qkv(normed).view(rows, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    q, k = rotated(qkv[0], cosine, sine), rotated(qkv[1], cosine, sine)
    mixed = attend(q, k, qkv[2])
    x = x + block.attn.proj(mixed.transpose(1, 2).reshape(rows, length, width))
    normed = norm(x, block.norm2.weight)
    return x + block.mlp.down_proj(F.silu(block.mlp.gate_proj(normed)) * block.mlp.up_proj(normed))


def see(visual: Any, weight: Tensor, patches: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Patches [images, patches, 588] to what the language part reads [images, cells, 256].

    `weight` [width, 588] is the patch embedding for one frame, the sum over both in the Hugging Face model.
    """
    x = F.linear(patches.to(cosine.dtype), weight.to(cosine.dtype))
    for block in visual.blocks:
        x = vision_block(block, x, cosine, sine, visual.config.num_heads)
    merger = visual.merger
    normed = norm(x, merger.ln_q.weight)
    return merger.mlp(normed.reshape(x.shape[0], x.shape[1] // MERGE**2, -1))


def text_layer(layer: Any, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor, seen: list[Tensor] | None) -> Tensor:
    rows, length, _ = x.shape
    attention, head = layer.self_attn, layer.self_attn.head_dim
    normed = norm(x, layer.input_layernorm.weight)
    q, k, v = (
        projection(normed).view(rows, length, -1, head).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    q, k = rotated(q, cosine, sine), rotated(k, cosine, sine)
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    mixed = attend(q, k, v, mask, seen)
    x = x + attention.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
    normed = norm(x, layer.post_attention_layernorm.weight)
    return x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(normed)) * layer.mlp.up_proj(normed))


def compile_layers() -> None:
    """Let torch.compile, which needs a C++ compiler, fuse what is between the products, for as long as the process lives.

    A step takes 1.2 s instead of 1.8. Shapes are left open: there is a grid, and a length of rows, for every batch.
    """
    global text_layer, vision_block
    text_layer = torch.compile(text_layer, dynamic=True)
    vision_block = torch.compile(vision_block, dynamic=True)


def read(
    language: Any, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor, seen: dict[int, list[Tensor]] | None = None
) -> Tensor:
    """Embeddings [rows, length, 256] to the last hidden states; `mask` [rows, 1, length, length] is added.

    `seen` takes the attention shares of the layers that it has a list for.
    """
    for number, layer in enumerate(language.layers):
        x = text_layer(layer, x, cosine, sine, mask, seen.get(number) if seen else None)
    return norm(x, language.norm.weight)
