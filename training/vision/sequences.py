"""Dialogues about images as padded rows of tokens, with positions in three parts and the mask that keeps branches apart.

A row: [beginning with its images | branch 1 | branch 2 | ... | padding]. A branch sees the beginning and itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.dialogue import Segment, encode_at, encode_merged, generation_points
from training.vision.dialogues import Dialogue
from training.vision.model import IMAGE
from training.vision.patches import Grid

# Share of branches whose last prompt and answer are tokenised apart.
CUT = 0.5
Place = tuple[int, int, int]


@dataclass
class Rows:
    """ids, learned [rows, length]; places [3, rows, length]; mask [rows, 1, length, length], added to the scores."""

    ids: Tensor
    learned: Tensor
    places: Tensor
    mask: Tensor


@dataclass
class Row:
    """One dialogue's tokens, while it grows."""

    ids: list[int]
    learned: list[bool]
    places: list[Place]
    groups: list[int]


def placed(ids: list[int], start: int, image: int, grid: Grid) -> tuple[list[int], list[Place], int]:
    """Each image token repeated for every cell, the positions, and the position that follows."""
    out: list[int] = []
    places: list[Place] = []
    for token in ids:
        if token != image:
            out.append(token)
            places.append((start, start, start))
            start += 1
            continue
        out += [image] * (grid[0] * grid[1])
        places += [(start, start + r, start + c) for r in range(grid[0]) for c in range(grid[1])]
        start += max(grid)
    return out, places, start


def _spread(learned: list[bool], ids: list[int], image: int, cells: int) -> list[bool]:
    return [flag for flag, token in zip(learned, ids, strict=True) for _ in range(cells if token == image else 1)]


def row_of(rng: Random, words: Tokenizer, dialogue: Dialogue, grid: Grid) -> Row:
    """The tokens of a dialogue."""
    image = words.get_vocab()[IMAGE]
    ids, learned = encode_merged(words, dialogue.beginning)
    spread = _spread(learned, ids, image, grid[0] * grid[1])
    ids, places, start = placed(ids, 0, image, grid)
    row = Row(ids, spread, places, [0] * len(ids))
    for number, (_, segments) in enumerate(dialogue.branches, 1):
        ids, learned = encoded(rng, words, segments)
        ids, places, _ = placed(ids, start, image, grid)
        row.ids += ids
        row.learned += learned
        row.places += places
        row.groups += [number] * len(ids)
    return row


def encoded(rng: Random, words: Tokenizer, segments: list[Segment]) -> tuple[list[int], list[bool]]:
    if rng.random() < CUT:
        return encode_at(words, segments, generation_points(segments)[-1])
    return encode_merged(words, segments)


def collate(rows: list[Row], padding: int) -> Rows:
    """Rows padded on the right to one length."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), padding)
    learned = torch.zeros((len(rows), length), dtype=torch.bool)
    places = torch.zeros((3, len(rows), length), dtype=torch.int64)
    groups = torch.full((len(rows), length), -1)
    for i, row in enumerate(rows):
        size = len(row.ids)
        ids[i, :size] = torch.tensor(row.ids)
        learned[i, :size] = torch.tensor(row.learned)
        places[:, i, :size] = torch.tensor(row.places).T
        groups[i, :size] = torch.tensor(row.groups)
    same = (groups[:, :, None] == groups[:, None, :]) | (groups[:, None, :] == 0)
    allowed = same & torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(allowed.shape, dtype=torch.bfloat16).masked_fill(~allowed, float("-inf"))
    return Rows(ids, learned, places, mask[:, None])


def plain_rows(ids: Tensor, learned: Tensor) -> Rows:
    """Text without images, as rows of one group."""
    rows, length = ids.shape
    mask = torch.zeros(length, length, dtype=torch.bfloat16)
    mask.masked_fill_(~torch.ones(length, length, dtype=torch.bool).tril(), float("-inf"))
    return Rows(ids, learned, torch.arange(length).expand(3, rows, length), mask.expand(rows, 1, length, length))
