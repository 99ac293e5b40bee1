"""Images and videos as values: from what a notebook has at hand to what a request carries.

Nothing is fetched: a URL is passed on to the server. Files are bounded in size, and told by their first bytes, not by their names.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sgl_jupyter.backends.base import Image, Video

MAX_BYTES = 64 * 2**20
"""Of one image's file, or of all frames of a video together."""
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
}


def as_image(source: Any) -> Image:
    """An image of a path, a URL, the bytes of an image's file, a PIL image, or an array of pixels (height, width[, 1, 3 or 4]).

    Arrays are uint8; a tensor may have its channels first. Pixels become PNG, files stay as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, or one of more than 64 MiB.
        TypeError: it is none of these.
    """
    if isinstance(source, str) and source.startswith(("http://", "https://", "data:image/")):
        return Image(source)
    if isinstance(source, str | Path):
        return _of_file(_read(Path(source)), str(source))
    if isinstance(source, bytes | bytearray):
        return _of_file(bytes(source), "the given bytes")
    if hasattr(source, "save") and hasattr(source, "mode"):
        return _of_pil(source)
    if hasattr(source, "__array__"):
        return _of_array(source)
    raise TypeError(f"image() takes a path, a URL, bytes, a PIL image or an array, not {type(source).__name__}")


def as_video(source: Any, num_frames: int) -> Video:
    """`num_frames` frames, evenly spaced, of a video's file, an animated image's file, or a sequence of images.

    Raises:
        FileNotFoundError, ValueError, TypeError: as for `as_image`; or there are fewer frames than one.
        ImportError: the file is a video, and OpenCV is not installed.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, not {num_frames}")
    if isinstance(source, str | Path):
        frames = tuple(map(_of_pil, _frames_of_file(Path(source), num_frames)))
    elif isinstance(source, Sequence) or hasattr(source, "__array__"):
        frames = tuple(_frame(source[i]) for i in _spread(len(source), num_frames))
    else:
        raise TypeError(f"video() takes a path or a sequence of images, not {type(source).__name__}")
    if not frames:
        raise ValueError(f"{source!r} has no frames")
    if sum(len(frame.url) for frame in frames) > MAX_BYTES * 4 / 3:
        raise ValueError(f"{num_frames} frames are more than {MAX_BYTES // 2**20} MiB: take fewer or smaller ones")
    return Video(frames)


def _frame(source: Any) -> Image:
    """An image as a PNG file, as which the frames of a video are sent."""
    image = as_image(source)
    if image.base64 is None:
        raise ValueError(f"the frames of a video must be here, and are not fetched: {image.url[:80]!r}")
    if image.url.startswith("data:image/png;"):
        return image
    from PIL import Image as pil

    return _of_pil(pil.open(io.BytesIO(base64.b64decode(image.base64))))


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES // 2**20} MiB")
    return path.read_bytes()


def _of_file(content: bytes, name: str) -> Image:
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name}: more than {MAX_BYTES // 2**20} MiB")
    mime_type = next((kind for start, kind in _SIGNATURES.items() if content.startswith(start)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        mime_type = "image/webp"
    if mime_type is None:
        raise ValueError(f"{name}: not a PNG, JPEG, GIF, WebP or BMP image")
    return Image(f"data:{mime_type};base64,{base64.b64encode(content).decode()}")


def _of_pil(picture: Any) -> Image:
    file = io.BytesIO()
    (picture if picture.mode in ("1", "L", "P", "RGB", "RGBA") else picture.convert("RGB")).save(file, "PNG")
    return _of_file(file.getvalue(), "the picture")


def _of_array(array: Any) -> Image:
    import numpy  # whoever has an array has numpy
    from PIL import Image as pil

    pixels = numpy.asarray(array)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != numpy.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ValueError(
            f"an array of pixels must be uint8 of shape (height, width[, 1, 3 or 4]), not {pixels.dtype} of {pixels.shape}"
        )
    return _of_pil(pil.fromarray(numpy.ascontiguousarray(pixels)))


def _frames_of_file(path: Path, num_frames: int) -> Iterator[Any]:
    from PIL import Image as pil

    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith((b"GIF8", b"\x89PNG")) or start[8:12] == b"WEBP":
        with pil.open(path) as animation:
            for index in _spread(getattr(animation, "n_frames", 1), num_frames):
                animation.seek(index)
                yield animation.convert("RGB")
        return
    try:
        import cv2  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(f"{path} needs OpenCV to be read: pip install opencv-python-headless") from None
    video = cv2.VideoCapture(str(path))
    try:
        for index in _spread(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), num_frames):
            video.set(cv2.CAP_PROP_POS_FRAMES, index)
            found, pixels = video.read()
            if found:
                yield pil.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    finally:
        video.release()


def _spread(total: int, wanted: int) -> list[int]:
    """At most `wanted` indices below `total`, evenly spaced from the first to the last."""
    count = min(total, wanted)
    return [i * (total - 1) // max(count - 1, 1) for i in range(count)]
