"""Charts: images full of shapes and letters, from which the vision tower learns several times as much as from a scene."""

from __future__ import annotations

from random import Random

from training.dialogue import Split
from training.vision.colours import TEXT_CONTRAST
from training.vision.fonts import pick_font
from training.vision.patches import Grid
from training.vision.scenes import LEAST_RADIUS, Lettering, Scene, background, pick_shape, thing, visible_colour
from training.vision.words import cased, dictionary

UPPER, LOWER, DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"


def characters(rng: Random, split: Split, count: int) -> str:
    """`count` letters or digits at random, or words."""
    form = rng.random()
    if form < 0.25:
        words = rng.choices(dictionary(split), k=count)
        return " ".join(cased(rng, word) for word in words)[:count].strip()
    pool = UPPER if form < 0.6 else DIGITS if form < 0.8 else LOWER
    return "".join(rng.choice(pool) for _ in range(count))


def add_line(rng: Random, split: Split, scene: Scene, middle: float, tall: float) -> None:
    """A line of text as wide as the image, or as wide as it fits."""
    font = pick_font(rng, split)
    colour, rgb = visible_colour(rng, scene.background, least=TEXT_CONTRAST)
    size = max(8, round(tall * rng.uniform(0.75, 1.1)))
    letter = max(font.width("NOnose", size) / 6, 1.0)
    text = characters(rng, split, max(1, int(scene.width * rng.uniform(0.75, 1.0) / letter)))
    while len(text) > 1 and font.width(text, size) > scene.width:
        text = text[:-1]
    text = text.strip() or "A"
    half = min(font.width(text, size) / 2, scene.width / 2)
    x = rng.uniform(half, max(half, scene.width - half))
    scene.lines.append(Lettering(text, "word", colour, rgb, font, size, x, middle))


def add_row(rng: Random, scene: Scene, middle: float, tall: float) -> None:
    """A row of shapes side by side."""
    step = tall * rng.uniform(1.0, 1.5)
    x = step * rng.uniform(0.5, 1.0)
    while x < scene.width - step * 0.4:
        if rng.random() < 0.85:
            shape = pick_shape(rng)
            least = min(LEAST_RADIUS[shape] * scene.unit * 0.9, tall * 0.45)
            radius = max(least, tall * rng.uniform(0.32, 0.46))
            at = (x + rng.uniform(-0.04, 0.04) * tall, middle + rng.uniform(-0.05, 0.05) * tall)
            scene.things.append(thing(rng, shape, *visible_colour(rng, scene.background), at, radius))
        x += step


def make_chart(rng: Random, split: Split, size: tuple[int, int], grid: Grid) -> Scene:
    """Rows of shapes and lines of letters from the top down; no two rows in one row of cells."""
    scene = Scene(*size, grid, background(rng))
    letters = rng.choice((0.0, 0.5, 0.8, 1.0, 1.0))
    top = 0.0
    cell = scene.height / grid[0]
    while True:
        tall = cell * rng.uniform(1.0, 1.0 + rng.random() * 1.2)
        if top + tall > scene.height:
            break
        if rng.random() < letters:
            wide = tall * rng.uniform(0.55, 0.95)
            add_line(rng, split, scene, top + tall / 2, min(wide, scene.width / 2))
        else:
            add_row(rng, scene, top + tall / 2, tall)
        top += tall + rng.random() * 0.2 * cell
    return scene
