"""What the vision tower is told about every cell while it trains: which shape has its centre there, which letters.

Invariant: labels agree with the drawing; a cell with two things or too many letters is left out of the loss.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.vision.colours import COLOURS
from training.vision.scenes import SHAPES, Lettering, Scene, Thing

LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# A letter's column is half a cell wide: one patch.
COLUMNS = 2
# What a thing's cell counts: things of its name, of its shape, of its colour, all things; those left of it, those above.
COUNTS, MOST = 6, 8
# Fields of a cell's label: shape (0: none), colour, one letter for each column (0: none), the counts, and how many
# letters come before the cell's first one. -1 is left out.
FIELDS = 2 + COLUMNS + COUNTS + 1
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
    found[..., 2 + COLUMNS :] = -1
    for thing in scene.things:
        cell = found[_index(thing.y, scene.height, rows), _index(thing.x, scene.width, columns)]
        if cell[0] != 0:
            cell[:2] = cell[2 + COLUMNS :] = -1
            continue
        cell[:2] = torch.tensor((SHAPES.index(thing.shape) + 1, COLOURS.index(thing.colour)))
        if not scene.lines:
            cell[2 + COLUMNS : 2 + COLUMNS + COUNTS] = torch.tensor(counts(scene, thing))
    for line in [scene.lettering, *scene.lines]:
        if line:
            _add_letters(found, scene, line)
    return found.view(-1, FIELDS)


def counts(scene: Scene, thing: Thing) -> list[int]:
    """The counts of a thing, as far as they are told apart; -1 for more."""
    others = scene.things
    found = (
        sum(t.name == thing.name for t in others),
        sum(t.shape == thing.shape for t in others),
        sum(t.colour == thing.colour for t in others),
        len(others),
        sum(t.x < thing.x for t in others),
        sum(t.y < thing.y for t in others),
    )
    return [n if n < MOST else -1 for n in found]


def _index(place: float, length: int, cells: int) -> int:
    return min(cells - 1, max(0, int(place / length * cells)))


def _add_letters(found: Tensor, scene: Scene, line: Lettering) -> None:
    rows, columns = scene.grid
    for number, (letter, x, y) in enumerate(letter_places(line)):
        if letter == " ":
            continue
        column = _index(x, scene.width, columns * COLUMNS)
        cell = found[_index(y, scene.height, rows), column // COLUMNS]
        cell[1] = COLOURS.index(line.colour) if cell[1] < 0 else cell[1]
        if cell[-1] < 0 and number < 2 * MOST and not scene.lines:
            cell[-1] = number
        slot = 2 + column % COLUMNS
        cell[slot] = LETTERS.index(letter) + 1 if cell[slot] == 0 else -1


class Heads(nn.Module):
    """One linear layer over what the language part would read, for all fields; thrown away after training."""

    SIZES = (len(SHAPES) + 1, len(COLOURS), *[len(LETTERS) + 1] * COLUMNS, *[MOST] * COUNTS, 2 * MOST)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(256, sum(self.SIZES))

    def losses(self, seen: Tensor, wanted: Tensor) -> tuple[Tensor, list[float]]:
        """The summed loss, and the share of right answers of each field where there is something to name."""
        parts = self.linear(seen.flatten(0, 1)).float().split(self.SIZES, dim=-1)
        total, right = seen.new_zeros(()).float(), []
        for field, (logits, target) in enumerate(zip(parts, wanted.flatten(0, 1).unbind(-1), strict=True)):
            weight = torch.ones(logits.shape[-1])
            sparse = field == 1 or field >= 2 + COLUMNS
            weight[0] = 1.0 if sparse else EMPTY_WEIGHT
            named = target >= 0 if sparse else target > 0
            if (target >= 0).any():
                share = 0.5 if field >= 2 + COLUMNS else 1.0
                total = total + share * F.cross_entropy(logits, target, weight, ignore_index=-1)
            right.append((logits.detach()[named].argmax(-1) == target[named]).float().mean().item())
        return total, right
