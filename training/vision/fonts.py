"""The fonts that lettering is drawn with: those that Debian's packages hold, by family, some kept for the evaluation.

training/README.md names the packages. With none of them there is still Pillow's own font.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from random import Random

from PIL import ImageFont

from training.dialogue import Split

FOLDER = Path("/usr/share/fonts")
# Families in training, by the start of a file's name. The first ones are what plots and drawings mostly use.
COMMON = ("DejaVuSans", "LiberationSans", "LiberationSerif", "LiberationMono", "DejaVuSerif")
TRAINED = (
    *("FreeMono", "FreeSerif", "Carlito", "OpenSans", "Roboto", "Hack", "FiraCode", "Nimbus", "C059", "P052"),
    *("URWBookman", "URWGothic", "LinLibertine", "EBGaramond12", "Play", "Cantarell", "NotoSans-", "NotoSerif-"),
)
HELD_OUT = ("Lato", "Caladea", "FreeSans", "ComicNeue", "Inconsolata", "NotoMono", "LinBiolinum")
# Too thin to survive resizing, or no plain letters.
LEFT_OUT = (
    "Thin",
    "Hairline",
    "ExtraLight",
    "Light",
    "Math",
    "_DR",
    "_I",
    "_RZ",
    "_M",
    "_K",
    "Condensed-Light",
    "CondLight",
)


@dataclass(frozen=True)
class Font:
    """A font file, or Pillow's own font when there is no path."""

    path: str | None

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        return _load(self.path, size)

    def width(self, text: str, size: int) -> float:
        return self.at(size).getlength(text)


@lru_cache(maxsize=4000)
def _load(path: str | None, size: int) -> ImageFont.FreeTypeFont:
    if path is None:
        font = ImageFont.load_default(size)
        if isinstance(font, ImageFont.FreeTypeFont):
            return font
        raise RuntimeError("Pillow was built without FreeType")
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def families(split: Split) -> tuple[tuple[Font, ...], ...]:
    """The fonts of each family that is installed; Pillow's own belongs to training."""
    files = sorted(p for p in FOLDER.rglob("*") if p.suffix in (".ttf", ".otf"))
    files = [p for p in files if not any(mark in p.stem for mark in LEFT_OUT)]
    found: list[tuple[Font, ...]] = [] if split == "held_out" else [(Font(None),)] * 3
    for name in HELD_OUT if split == "held_out" else (*COMMON, *COMMON, *COMMON, *TRAINED):
        if fonts := tuple(Font(str(p)) for p in files if p.stem.startswith(name)):
            found.append(fonts)
    return tuple(found) or ((Font(None),),)


def pick_font(rng: Random, split: Split) -> Font:
    return rng.choice(rng.choice(families(split)))
