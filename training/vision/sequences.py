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
from training.vision.dialogues import Dialogue, Looking
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
    looks: Tensor | None = None


@dataclass
class Row:
    """One dialogue's tokens, while it grows."""

    ids: list[int]
    learned: list[bool]
    places: list[Place]
    groups: list[int]
    # The row's index of the image token that a token is to be found at; -1 where there is none.
    looks: list[int]


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
    image = words.token_to_id(IMAGE)
    if image is None:
        raise ValueError(f"the tokenizer has no {IMAGE}")
    ids, learned = encode_merged(words, dialogue.beginning)
    spread = _spread(learned, ids, image, grid[0] * grid[1])
    ids, places, start = placed(ids, 0, image, grid)
    row = Row(ids, spread, places, [0] * len(ids), [-1] * len(ids))
    for number, (_, segments) in enumerate(dialogue.branches, 1):
        ids, learned = encoded(rng, words, segments)
        ids, places, _ = placed(ids, start, image, grid)
        row.ids += ids
        row.learned += learned
        row.places += places
        row.groups += [number] * len(ids)
        row.looks += looks_of(words, segments, ids, dialogue.size, grid, row.ids.index(image))
    return row


def looks_of(
    words: Tokenizer, segments: list[Segment], ids: list[int], size: tuple[int, int] | None, grid: Grid, first: int
) -> list[int]:
    """For each token the place where it is found, for a branch of one turn whose answer says so."""
    looks = [-1] * len(ids)
    answer = segments[-2]
    if size is None or len(segments) != 4 or not isinstance(answer, Looking) or not answer.found:
        return looks
    by_letter, start = [-1] * len(answer.text), 0
    lower = answer.text.lower()
    if lower.startswith("the ") and len(answer.found[0][0]) == 1:
        start = len(lower.rstrip(".")) - len(answer.found)
    begun = 0
    for part, x, y in answer.found:
        at = lower.find(part.lower(), start)
        if at < 0:
            return looks
        row = min(grid[0] - 1, max(0, int(y / size[1] * grid[0])))
        column = min(grid[1] - 1, max(0, int(x / size[0] * grid[1])))
        start = at + len(part)
        by_letter[(at if len(part) == 1 else begun) : start] = [first + row * grid[1] + column] * (
            start - (at if len(part) == 1 else begun)
        )
        begun = start
    end = len(by_letter)
    for index in range(len(ids) - 3, -1, -1):
        begin = end - len(words.id_to_token(ids[index]) or "")
        if begin < 0:
            break
        looks[index] = by_letter[begin] if by_letter[begin] >= 0 else by_letter[end - 1]
        end = begin
    return looks


def encoded(rng: Random, words: Tokenizer, segments: list[Segment]) -> tuple[list[int], list[bool]]:
    if rng.random() < CUT:
        return encode_at(words, segments, generation_points(segments)[-1])
    return encode_merged(words, segments)


def collate(rows: list[Row], padding: int) -> Rows:
    """Rows padded on the right to one length, a multiple of 16: kernels and memory are kept by shape."""
    length = -(-max(len(row.ids) for row in rows) // 16) * 16
    ids = torch.full((len(rows), length), padding)
    learned = torch.zeros((len(rows), length), dtype=torch.bool)
    places = torch.zeros((3, len(rows), length), dtype=torch.int64)
    groups = torch.full((len(rows), length), -1)
    looks = torch.full((len(rows), length), -1)
    for i, row in enumerate(rows):
        size = len(row.ids)
        ids[i, :size] = torch.tensor(row.ids)
        learned[i, :size] = torch.tensor(row.learned)
        places[:, i, :size] = torch.tensor(row.places).T
        groups[i, :size] = torch.tensor(row.groups)
        looks[i, :size] = torch.tensor(row.looks)
    same = (groups[:, :, None] == groups[:, None, :]) | (groups[:, None, :] == 0)
    allowed = same & torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(allowed.shape, dtype=torch.bfloat16).masked_fill(~allowed, float("-inf"))
    return Rows(ids, learned, places, mask[:, None], looks)


def plain_rows(ids: Tensor, learned: Tensor) -> Rows:
    """Text without images, as rows of one group."""
    rows, length = ids.shape
    mask = torch.zeros(length, length, dtype=torch.bfloat16)
    mask.masked_fill_(~torch.ones(length, length, dtype=torch.bool).tril(), float("-inf"))
    return Rows(ids, learned, torch.arange(length).expand(3, rows, length), mask.expand(rows, 1, length, length))
