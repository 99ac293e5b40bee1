"""The named colours: each a set of anchors between which it is drawn, and what stands out from what."""

from __future__ import annotations

from random import Random

RGB = tuple[int, int, int]

ANCHORS: dict[str, tuple[RGB, ...]] = {
    "red": ((255, 0, 0), (220, 20, 20), (200, 0, 0), (220, 50, 47), (214, 39, 40), (220, 20, 60)),
    "green": ((0, 128, 0), (0, 255, 0), (34, 139, 34), (50, 205, 50), (0, 160, 60), (44, 160, 44), (0, 100, 0)),
    "blue": ((0, 0, 255), (30, 60, 200), (0, 0, 180), (65, 105, 225), (30, 120, 235), (31, 119, 180), (0, 0, 128)),
    "yellow": ((255, 255, 0), (255, 230, 0), (240, 220, 40), (255, 215, 0)),
    "orange": ((255, 165, 0), (255, 140, 0), (240, 120, 20), (255, 127, 14)),
    "purple": ((128, 0, 128), (150, 50, 200), (100, 20, 140), (148, 103, 189), (138, 43, 226)),
    "pink": ((255, 192, 203), (255, 105, 180), (255, 150, 190), (255, 130, 170), (255, 20, 147)),
    "brown": ((139, 69, 19), (150, 75, 0), (120, 70, 30), (101, 67, 33), (150, 90, 50), (140, 86, 75)),
    "black": ((0, 0, 0), (20, 20, 20), (30, 30, 30)),
    "white": ((255, 255, 255), (245, 245, 245), (250, 250, 250)),
    "gray": ((128, 128, 128), (105, 105, 105), (160, 160, 160), (180, 180, 180)),
    "cyan": ((0, 255, 255), (0, 220, 230), (0, 200, 210), (23, 190, 207)),
}
COLOURS = tuple(ANCHORS)
# How far a shape's or a letter's colour is from what is behind it, at least.
LEAST_CONTRAST, TEXT_CONTRAST = 80.0, 115.0


def shade(rng: Random, name: str) -> RGB:
    """A shade of the colour: half of the time an anchor itself, else a point between two, slightly off."""
    first = rng.choice(ANCHORS[name])
    if rng.random() < 0.5:
        return first
    second, share = rng.choice(ANCHORS[name]), rng.random()
    red, green, blue = (
        min(255, max(0, round(a + (b - a) * share + rng.uniform(-6, 6)))) for a, b in zip(first, second, strict=True)
    )
    return red, green, blue


def distance(a: RGB, b: RGB) -> float:
    """How far apart two colours look, roughly: green counts more than red, red more than blue."""
    weights = (1.0, 1.3, 0.7)
    return sum(w * (x - y) ** 2 for w, x, y in zip(weights, a, b, strict=True)) ** 0.5


def stands_out(rgb: RGB, others: list[RGB], least: float = LEAST_CONTRAST) -> bool:
    """Whether `rgb` differs enough from every one of `others`."""
    return all(distance(rgb, other) >= least for other in others)
