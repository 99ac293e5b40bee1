"""Batches of tokens from the stream of dialogues: padded, of similar lengths, a steady number of tokens each."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.corpus import stream
from training.dialogue import Segment, encode_at, encode_merged, generation_points

POOL = 256
LONGEST = 1024
# Share of dialogues that end at a generation point, most often the last, with prompt and answer tokenised apart.
CUT = 0.5

Example = tuple[list[int], list[bool]]


def example(rng: Random, tokenizer: Tokenizer, segments: list[Segment]) -> Example:
    """Token ids of a dialogue and which of them are learned."""
    if rng.random() < CUT:
        points = generation_points(segments)
        return encode_at(tokenizer, segments, points[-1] if rng.random() < 0.7 else rng.choice(points))
    return encode_merged(tokenizer, segments)


def collate(examples: list[Example], padding: int) -> tuple[Tensor, Tensor]:
    """ids [rows, length], padded on the right, and the mask of learned tokens of the same shape."""
    length = max(len(ids) for ids, _ in examples)
    ids = torch.full((len(examples), length), padding)
    learned = torch.zeros((len(examples), length), dtype=torch.bool)
    for row, (tokens, mask) in enumerate(examples):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        learned[row, : len(mask)] = torch.tensor(mask)
    return ids, learned


def batches(tokenizer: Tokenizer, seed: int, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of about `tokens` tokens; a pool sorted by length keeps the padding small."""
    rng = Random(seed)
    padding = tokenizer.get_vocab()["<|endoftext|>"]
    source = stream(seed)
    while True:
        pool: list[Example] = []
        while len(pool) < POOL:
            made = example(rng, tokenizer, next(source))
            if len(made[0]) <= LONGEST:
                pool.append(made)
        pool.sort(key=lambda e: len(e[0]))
        groups: list[list[Example]] = [[]]
        for made in pool:
            if groups[-1] and (len(groups[-1]) + 1) * len(made[0]) > tokens:
                groups.append([])
            groups[-1].append(made)
        rng.shuffle(groups)
        for group in groups:
            yield collate(group, padding)
