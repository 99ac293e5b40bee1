"""From the images that a request names to pictures for its prompt: fetched, decoded and processed beside the event loop.

Invariant: of what lies in a file only a decoded image of bounded size reaches the model; anything else is a `RequestError`.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import RequestError
from .prompt import Picture, Prompt
from .sight import Sight
from .sources import Sources

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")
MAX_PIXELS = 50_000_000
MAX_IMAGES = 256
"""Of one body, frames of videos included."""
KEPT_BYTES = 256 << 20
"""Of processed images that are kept for the next request that names them."""
THREADS = 2


@dataclass(frozen=True, slots=True)
class Shown:
    """The pictures of one body, by the names that it gives them; a video is several. A model that sees nothing has none."""

    sight: Sight | None = None
    pictures: dict[str, list[Picture]] = field(default_factory=dict)

    def prompt(self, ids: list[int], names: Sequence[str] = ()) -> Prompt:
        """The prompt of `ids` in which what `names` name stands, in order, at the tokens that stand for images.

        Raises `RequestError` if there are more or fewer of those, or the model sees nothing.
        """
        if self.sight is None and any(names):
            raise RequestError("image_data is not supported by this model: it takes text only.", param="image_data")
        if self.sight is None:
            return Prompt(ids)
        return self.sight.prompt(ids, [self.pictures[name] for name in names])


class PictureReader:
    """Reads images for a model with `sight`; for one without, nothing is fetched."""

    def __init__(self, sight: Sight | None, sources: Sources):
        self._sight, self._sources = sight, sources
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="images")
        self._secret = os.urandom(16)
        """Without it nobody can make two images of one key."""
        self._known: OrderedDict[int, Picture] = OrderedDict()

    async def read(self, names: Iterable[str]) -> Shown:
        """What `names` name. Raises `RequestError` if one of them cannot be had, or is not an image."""
        if self._sight is None:
            return Shown()
        wanted = list(dict.fromkeys(names))
        files = await asyncio.gather(*(self._sources.files(name) for name in wanted))
        if sum(map(len, files)) > MAX_IMAGES:
            raise RequestError(f"a request may hold {MAX_IMAGES} images, frames of videos included.")
        pictures = [await asyncio.gather(*(self._picture(file) for file in each)) for each in files]
        return Shown(self._sight, dict(zip(wanted, pictures, strict=True)))

    async def _picture(self, file: bytes) -> Picture:
        loop = asyncio.get_running_loop()
        key = await loop.run_in_executor(self._threads, self._key, file)
        picture = self._known.get(key) or await loop.run_in_executor(self._threads, self._make, file, key)
        self._known[key] = picture
        self._known.move_to_end(key)
        while len(self._known) > 1 and sum(map(_bytes, self._known.values())) > KEPT_BYTES:
            self._known.popitem(last=False)
        return picture

    def _key(self, file: bytes) -> int:
        digest = hashlib.blake2b(file, digest_size=8, key=self._secret).digest()
        return -2 - (int.from_bytes(digest) >> 3 << 1)  # even: the same image as other families see it has an odd one

    def _make(self, file: bytes, key: int) -> Picture:
        assert self._sight is not None
        return self._sight.picture(decode(file), key)


def decode(file: bytes) -> Image.Image:
    """The upright RGB image in a PNG, JPEG, GIF, WebP or BMP file; of an animation, its first frame."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the bound below is ours, and an error
            image = Image.open(io.BytesIO(file), formats=FORMATS)
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                raise RequestError(f"an image has {size} pixels; at most {MAX_PIXELS // 1_000_000} million are read.")
            return ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise RequestError("an image is damaged, or not a PNG, JPEG, GIF, WebP or BMP file.") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise RequestError(f"an image is damaged: {str(error).rstrip('.')}.") from None


def _bytes(picture: Picture) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in picture.inputs.values())
