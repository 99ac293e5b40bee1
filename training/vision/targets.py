"""What the vision tower is told about every cell while it trains: which shape has its centre there, which letters.

Invariant: labels agree with the drawing; a cell with two things or too many letters is left out of the loss.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.vision.colours import COLOURS
from training.vision.scenes import SHAPES, Lettering, Scene

LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# A letter's column is half a cell wide: one patch.
COLUMNS = 2
# Fields of a cell's label: shape (0: none), colour, then one letter for each column (0: none). -1 is left out.
FIELDS = 2 + COLUMNS
# Most cells are empty, and soon told apart.
EMPTY_WEIGHT = 0.15


def letter_places(line: Lettering) -> list[tuple[str, float, float]]:
    """Each letter with its centre."""
    whole = line.font.width(line.text, line.size)
    sine, cosine = math.sin(math.radians(line.angle)), math.cos(math.radians(line.angle))
    places: list[tuple[str, float, float]] = []
    for i, letter in enumerate(line.text):
        before = line.font.width(line.text[:i], line.size)
        along = before + line.font.width(letter, line.size) / 2 - whole / 2
        places.append((letter, line.x + along * cosine, line.y - along * sine))
    return places


def labels(scene: Scene) -> Tensor:
    """Labels [cells, FIELDS] of a scene."""
    rows, columns = scene.grid
    found = torch.zeros(rows, columns, FIELDS, dtype=torch.int64)
    found[..., 1] = -1
    for thing in scene.things:
        cell = found[_index(thing.y, scene.height, rows), _index(thing.x, scene.width, columns)]
        new = torch.tensor((SHAPES.index(thing.shape) + 1, COLOURS.index(thing.colour)))
        cell[:2] = new if cell[0] == 0 else -1
    for line in [scene.lettering, *scene.lines]:
        if line:
            _add_letters(found, scene, line)
    return found.view(-1, FIELDS)


def _index(place: float, length: int, cells: int) -> int:
    return min(cells - 1, max(0, int(place / length * cells)))


def _add_letters(found: Tensor, scene: Scene, line: Lettering) -> None:
    rows, columns = scene.grid
    for letter, x, y in letter_places(line):
        if letter == " ":
            continue
        column = _index(x, scene.width, columns * COLUMNS)
        cell = found[_index(y, scene.height, rows), column // COLUMNS]
        cell[1] = COLOURS.index(line.colour) if cell[1] < 0 else cell[1]
        slot = 2 + column % COLUMNS
        cell[slot] = LETTERS.index(letter) + 1 if cell[slot] == 0 else -1


class Heads(nn.Module):
    """One linear layer over what the language part would read, for all fields; thrown away after training."""

    SIZES = (len(SHAPES) + 1, len(COLOURS), *[len(LETTERS) + 1] * COLUMNS)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(256, sum(self.SIZES))

    def losses(self, seen: Tensor, wanted: Tensor) -> tuple[Tensor, list[float]]:
        """The summed loss, and the share of right answers of each field where there is something to name."""
        parts = self.linear(seen.flatten(0, 1)).float().split(self.SIZES, dim=-1)
        total, right = seen.new_zeros(()).float(), []
        for field, (logits, target) in enumerate(zip(parts, wanted.flatten(0, 1).unbind(-1), strict=True)):
            weight = torch.ones(logits.shape[-1])
            weight[0] = 1.0 if field == 1 else EMPTY_WEIGHT
            total = total + F.cross_entropy(logits, target, weight, ignore_index=-1)
            named = target >= 0 if field == 1 else target > 0
            right.append((logits.detach()[named].argmax(-1) == target[named]).float().mean().item())
        return total, right
