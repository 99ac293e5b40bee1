"""Batches of drawn images of one grid, with their scenes and the labels of their cells."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from training.dialogue import Split
from training.vision.charts import make_chart
from training.vision.drawing import paint
from training.vision.patches import Grid, resized, sizes_by_grid
from training.vision.scenes import Scene, make_scene
from training.vision.targets import labels


@dataclass
class Pictures:
    """Bytes [images, 3, height, width], labels [images, cells, fields], and what is in them."""

    grid: Grid
    pixels: Tensor
    labels: Tensor
    scenes: list[Scene]


def pictures(rng: Random, split: Split, grid: Grid, count: int, charts: float = 0.0, easy: float = 0.0) -> Pictures:
    """`count` new images: a share of them charts, a share of the others scenes of one thing."""
    sizes = sizes_by_grid()[grid]
    scenes: list[Scene] = []
    for _ in range(count):
        size = rng.choice(sizes)
        if rng.random() < charts:
            scenes.append(make_chart(rng, split, size, grid))
        else:
            scenes.append(make_scene(rng, split, size, grid, "one" if rng.random() < easy else None))
    pixels = np.stack([resized(paint(rng, scene), grid) for scene in scenes])
    return Pictures(grid, torch.from_numpy(pixels), torch.stack([labels(scene) for scene in scenes]), scenes)
