"""Small and large images for the tests of views."""

from __future__ import annotations

import io
import random

from PIL import Image as pil

from sgl_jupyter.backends.base import Image
from sgl_jupyter.lang.media import as_image


def picture(width: int = 64, height: int = 48, kind: str = "PNG") -> Image:
    """An image of one colour."""
    file = io.BytesIO()
    pil.new("RGB", (width, height), (200, 80, 0)).save(file, kind)
    return as_image(file.getvalue())


def noise(side: int) -> Image:
    """An image that no compression makes small."""
    return as_image(pil.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side * side)))
