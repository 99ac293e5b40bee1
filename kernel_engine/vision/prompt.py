"""A prompt as a model takes it: token ids, and the pictures that stand at some of them. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image as the model's processor made it.

    `key` stands for its content wherever prompts are compared; it is negative, as no token id is. It takes `tokens` places in a
    prompt. `inputs` are what the model's vision part computes their embeddings from.
    """

    key: int
    tokens: int
    inputs: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class PlacedPicture:
    """A picture whose first place in a prompt is `start`."""

    picture: Picture
    start: int

    @property
    def stop(self) -> int:
        return self.start + self.picture.tokens


@dataclass(frozen=True, slots=True)
class Prompt:
    """`positions` [axes, len(ids)] says where each token is for the model, if that is not its index."""

    ids: list[int]
    pictures: tuple[PlacedPicture, ...] = ()
    positions: np.ndarray | None = None

    def cut(self, length: int) -> Prompt:
        """Its first `length` tokens; a picture may lose its end."""
        pictures = tuple(placed for placed in self.pictures if placed.start < length)
        positions = None if self.positions is None else self.positions[:, :length]
        return Prompt(self.ids[:length], pictures, positions)
