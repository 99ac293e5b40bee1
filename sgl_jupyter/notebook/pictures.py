"""Images and videos of a run as its views show them: inline where they are small and here, in words where they are not.

Nothing is fetched, and nothing but pictures made of pixels reaches a page.
"""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass

from sgl_jupyter.lang.media import Image, Video

MAX_BYTES = 256 * 1024
"""Of the files of one image, or of a video's frames, that are saved with a run."""
_KINDS = {f"data:image/{kind.lower()};base64": kind for kind in ("PNG", "JPEG", "GIF", "WebP", "BMP")}


@dataclass(frozen=True, slots=True)
class Picture:
    """An image or a video: what it is, in words, and `data:` URLs of what can be shown inline."""

    words: str
    urls: tuple[str, ...] = ()

    @classmethod
    def of(cls, media: Image | Video) -> Picture:
        """The picture of `media`, which may be anything that a program was given."""
        if isinstance(media, Video):
            return _of_video(media)
        if media.url.startswith(("http://", "https://")):
            return cls(f"image at {media.url}")
        words, size = _described(media)
        if size > MAX_BYTES:
            return cls(f"image, {words}, {size / 1e6:.3g} MB: too large to be shown here")
        return cls(f"image, {words}", (media.url,) if size else ())


def _of_video(video: Video) -> Picture:
    frames = [(*_described(frame), frame.url) for frame in video.frames]
    shown, room = [], MAX_BYTES
    for _, size, url in frames:
        room -= size
        if size and room >= 0:
            shown.append(url)
    left_out = len(frames) - len(shown)
    note = f", of which {left_out} are not shown here" if left_out else ""
    return Picture(f"video, {len(frames)} frames, {frames[0][0]}{note}", tuple(shown))


def _described(image: Image) -> tuple[str, int]:
    """An image's size and kind in words, and the bytes of its file; 0 if it is none that can be shown."""
    from PIL import Image as pil

    start, _, data = image.url.partition(",")
    kind = _KINDS.get(start.lower())
    if kind is None:
        return "of an unknown kind", 0
    try:
        content = base64.b64decode(data, validate=True)
        with pil.open(io.BytesIO(content), formats=[kind.upper()]) as picture:
            width, height = picture.size
    except (binascii.Error, ValueError, OSError, pil.DecompressionBombError):
        return f"a {kind} that cannot be read", 0
    return f"{width}x{height} {kind}", len(content)
