"""Image sizes, grids and patches: exactly what transformers' Qwen2-VL image processor makes of an image, only faster.

A grid counts cells of 28 pixels, each of which becomes one token; a cell holds 2 x 2 patches of 14.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

Grid = tuple[int, int]

CELL, PATCH, MERGE = 28, 14, 2
# Between 16 and 25 tokens an image.
LEAST_PIXELS, MOST_PIXELS = 112 * 112, 140 * 140
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
DEVIATION = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)


def processor() -> Qwen2VLImageProcessorPil:
    """The processor that ships with the model."""
    return Qwen2VLImageProcessorPil(min_pixels=LEAST_PIXELS, max_pixels=MOST_PIXELS)


def grid_of(width: int, height: int) -> Grid:
    """Rows and columns of cells that an image of this size becomes."""
    tall, wide = smart_resize(height, width, CELL, LEAST_PIXELS, MOST_PIXELS)
    return tall // CELL, wide // CELL


@cache
def sizes_by_grid() -> dict[Grid, list[tuple[int, int]]]:
    """Image sizes (width, height) that people make, by their grid; grids that are rare are left out."""
    rng, found = Random(5), defaultdict[Grid, list[tuple[int, int]]](list)
    common = (128, 160, 168, 200, 224, 240, 256, 300, 320, 336, 384, 400)
    for _ in range(20_000):
        width = rng.choice(common) if rng.random() < 0.5 else rng.randint(80, 420)
        shape = rng.random()
        if shape < 0.5:
            height = width
        elif shape < 0.65:
            width, height = round(width * 4 / 3), width
        else:
            height = round(width / rng.uniform(0.6, 3.2))
        if height >= 40:
            found[grid_of(width, height)].append((width, height))
    return {grid: sizes for grid, sizes in found.items() if len(sizes) >= 150}


def pick_grid(rng: Random) -> Grid:
    """A grid, as often as images have it."""
    table = sizes_by_grid()
    return rng.choices(list(table), [len(sizes) for sizes in table.values()])[0]


def resized(image: Image.Image, grid: Grid) -> np.ndarray:
    """The image as bytes [3, height, width], as large as the grid."""
    small = image.resize((grid[1] * CELL, grid[0] * CELL), Image.Resampling.BICUBIC)
    return np.asarray(small).transpose(2, 0, 1)


def patches_of(images: Tensor) -> Tensor:
    """Bytes [images, 3, height, width] to normalised patches [images, patches, 588], cell by cell."""
    count, _, height, width = images.shape
    values = (images.float() / 255 - MEAN) / DEVIATION
    cells = values.view(count, 3, height // CELL, MERGE, PATCH, width // CELL, MERGE, PATCH)
    return cells.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(count, -1, 3 * PATCH * PATCH)
