"""Scenes: what is in an image and where, chosen at random; drawing and asking both read from here.

Invariant: a scene is a function of the generator handed in. Lengths are pixels of the image before it is resized.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

from training.dialogue import Split
from training.vision.colours import COLOURS, LEAST_CONTRAST, RGB, TEXT_CONTRAST, shade, stands_out
from training.vision.fonts import Font, pick_font
from training.vision.patches import CELL, Grid
from training.vision.words import pick_text

SHAPES = ("circle", "square", "triangle", "rectangle", "star", "oval", "diamond", "hexagon", "heart", "cross")
# Drawn smaller than this (half its size, in pixels after resizing), a shape cannot be told from others.
LEAST_RADIUS = dict.fromkeys(SHAPES, 11.0) | {"circle": 8.0, "square": 8.0, "triangle": 9.0, "rectangle": 9.0}
COMMON_SHAPES = SHAPES[:4]


@dataclass(frozen=True)
class Thing:
    """One shape: centre, half of its greater extent, turned by `angle` degrees, `stretch` times as wide as tall."""

    shape: str
    colour: str
    rgb: RGB
    x: float
    y: float
    radius: float
    angle: float = 0.0
    stretch: float = 1.0
    edge: RGB | None = None
    hollow: bool = False

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Lettering:
    """A line of text, centred; `kind` is what one calls it: word, words, letter, number."""

    text: str
    kind: str
    colour: str
    rgb: RGB
    font: Font
    size: int
    x: float
    y: float
    angle: float = 0.0
    plate: RGB | None = None


@dataclass
class Background:
    """A plain colour, or a gradient to a second one; `colour` only where it can be named."""

    rgb: RGB
    second: RGB | None = None
    across: bool = False
    noise: float = 0.0
    colour: str | None = None

    @property
    def shades(self) -> list[RGB]:
        if self.second is None:
            return [self.rgb]
        red, green, blue = ((a + b) // 2 for a, b in zip(self.rgb, self.second, strict=True))
        return [self.rgb, self.second, (red, green, blue)]


@dataclass
class Scene:
    """An image of width x height pixels that the processor makes `grid` cells of."""

    width: int
    height: int
    grid: Grid
    background: Background
    things: list[Thing] = field(default_factory=list)
    lettering: Lettering | None = None
    # Lines of a chart, which teaches the vision tower and is not asked about.
    lines: list[Lettering] = field(default_factory=list)

    @property
    def unit(self) -> float:
        """How many pixels of the image make one after resizing."""
        return math.sqrt(self.width * self.height / (self.grid[0] * self.grid[1])) / CELL


def background(rng: Random) -> Background:
    """White most often, else a named colour, a pastel, or a gradient; sometimes noisy."""
    noise = rng.choice((4.0, 8.0, 15.0, 25.0)) if rng.random() < 0.25 else 0.0
    form = rng.random()
    if form < 0.33:
        return Background((255, 255, 255), noise=noise, colour="white")
    if form < 0.65:
        name = rng.choice(("white", "gray", "black", "black", *COLOURS))
        return Background(shade(rng, name), noise=noise, colour=name)
    base: RGB = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
    if form < 0.82:
        pale: RGB = (255 - base[0] // 4, 255 - base[1] // 4, 255 - base[2] // 4)
        return Background(pale if rng.random() < 0.7 else base, noise=noise)
    red, green, blue = (min(255, max(0, c + rng.randint(-90, 90))) for c in base)
    return Background(base, (red, green, blue), rng.random() < 0.5, noise)


def visible_colour(
    rng: Random, ground: Background, avoid: tuple[str, ...] = (), least: float = LEAST_CONTRAST
) -> tuple[str, RGB]:
    """A colour name and shade that stand out from the background."""
    for _ in range(200):
        name = rng.choice(COLOURS)
        rgb = shade(rng, name)
        if name not in avoid and name != ground.colour and stands_out(rgb, ground.shades, least):
            return name, rgb
    return next((n, shade(rng, n)) for n in ("black", "white") if stands_out(shade(rng, n), ground.shades[:1]))


def thing(rng: Random, shape: str, colour: str, rgb: RGB, at: tuple[float, float], radius: float) -> Thing:
    """A shape with the small accidents of drawing: turned, outlined, hollow."""
    angle = rng.uniform(-14, 14) if rng.random() < 0.3 else 0.0
    if shape in ("triangle", "star", "hexagon") and rng.random() < 0.15:
        angle = rng.uniform(0, 360)
    stretch = rng.uniform(1.55, 2.6) if shape in ("rectangle", "oval") else 1.0
    if stretch > 1 and rng.random() < 0.35:
        angle += 90
    edge: RGB | None = None
    if rng.random() < 0.12:
        edge = (0, 0, 0) if rng.random() < 0.7 else (rng.randint(0, 90), rng.randint(0, 90), rng.randint(0, 90))
    hollow = edge is None and radius > 0 and rng.random() < 0.06
    return Thing(shape, colour, rgb, *at, radius, angle, stretch, edge, hollow)


def spots(rng: Random, scene: Scene, radii: list[float]) -> list[tuple[float, float]] | None:
    """Places where circles of these radii do not touch, or None when they do not fit."""
    placed: list[tuple[float, float]] = []
    for index, radius in enumerate(radii):
        for _ in range(40):
            x = rng.uniform(min(radius * 1.05, scene.width / 2), max(scene.width - radius * 1.05, scene.width / 2))
            y = rng.uniform(min(radius * 1.05, scene.height / 2), max(scene.height - radius * 1.05, scene.height / 2))
            if all(math.dist((x, y), p) > (radius + r) * 1.08 for p, r in zip(placed, radii[:index], strict=False)):
                placed.append((x, y))
                break
        else:
            return None
    return placed


def add_things(rng: Random, scene: Scene, looks: list[tuple[str, str, RGB]]) -> None:
    """Put shapes of these looks (shape, colour name, shade) where they do not touch."""
    shape_floor = max(LEAST_RADIUS[shape] for shape, _, _ in looks)
    short = min(scene.grid) * CELL
    room = math.sqrt(scene.grid[0] * scene.grid[1] / len(looks)) * CELL
    ceiling = min(short * 0.47, room * 0.42)
    alike = rng.random() < 0.4
    while True:
        one = rng.uniform(min(shape_floor, ceiling), ceiling)
        radii = [one if alike else rng.uniform(min(shape_floor, ceiling), ceiling) for _ in looks]
        radii = [r * scene.unit for r in radii]
        if places := spots(rng, scene, radii):
            break
        ceiling *= 0.9
    for (shape, colour, rgb), place, radius in zip(looks, places, radii, strict=True):
        scene.things.append(thing(rng, shape, colour, rgb, place, radius))


def pick_shape(rng: Random, avoid: tuple[str, ...] = ()) -> str:
    """A shape; the four that everyone draws come more often."""
    choices = [s for s in (*SHAPES, *COMMON_SHAPES) if s not in avoid]
    return rng.choice(choices)


def different(rng: Random, scene: Scene, count: int) -> list[tuple[str, str, RGB]]:
    """`count` looks; most often all shapes and colours differ."""
    looks: list[tuple[str, str, RGB]] = []
    mixed = rng.random() < 0.25
    for _ in range(count):
        shapes = () if mixed else tuple(s for s, _, _ in looks)
        colours = () if mixed else tuple(c for _, c, _ in looks)
        looks.append((pick_shape(rng, shapes), *visible_colour(rng, scene.background, colours)))
    return looks


def groups(rng: Random, scene: Scene) -> list[tuple[str, str, RGB]]:
    """Some of one shape and, half of the time, some of another; a quarter of the groups have mixed colours."""
    first = pick_shape(rng)
    sizes = [(first, rng.choice((2, 2, 3, 3, 4, 4, 5, 5, 6)))]
    if rng.random() < 0.5:
        sizes = [(first, rng.randint(1, 4)), (pick_shape(rng, (first,)), rng.randint(1, 3))]
    looks: list[tuple[str, str, RGB]] = []
    for shape, count in sizes:
        colour, rgb = visible_colour(rng, scene.background)
        mixed = rng.random() < 0.25
        for _ in range(count):
            looks.append((shape, *(visible_colour(rng, scene.background) if mixed else (colour, rgb))))
    rng.shuffle(looks)
    return looks


def add_lettering(rng: Random, scene: Scene, split: Split, share: float = 1.0) -> None:
    """A word, a number or a letter, in the upper `share` of the image."""
    kind, text = pick_text(rng, split)
    font = pick_font(rng, split)
    plate: RGB | None = None
    ground = scene.background
    if rng.random() < 0.1:
        _, plate = visible_colour(rng, ground, least=TEXT_CONTRAST)
        ground = Background(plate)
    colour, rgb = "black", (0, 0, 0)
    if rng.random() < 0.7 or not stands_out(rgb, ground.shades, TEXT_CONTRAST):
        colour, rgb = visible_colour(rng, ground, least=TEXT_CONTRAST)
    room = scene.width * 0.94
    tall = scene.height * share
    widest = room / max(font.width(text, 100) / 100, 0.3)
    top = max(min(widest, tall * 0.9), 8 * scene.unit)
    low = min(max(15 * scene.unit, 8), top)
    size = max(7, round(rng.uniform(low, top) if rng.random() < 0.6 else rng.uniform((low + top) / 2, top)))
    half = font.width(text, size) / 2
    angle = rng.uniform(-9, 9) if rng.random() < 0.12 else 0.0
    x, y = scene.width / 2, tall / 2
    if rng.random() < 0.7:
        x = rng.uniform(min(half + 2, x), max(scene.width - half - 2, x))
        y = rng.uniform(min(size * 0.55, y), max(tall - size * 0.55, y))
    scene.lettering = Lettering(text, kind, colour, rgb, font, size, x, y, angle, plate)


FORMS = {"one": 17, "two": 16, "three": 12, "groups": 38, "text": 14, "both": 3, "empty": 1}


def make_scene(rng: Random, split: Split, size: tuple[int, int], grid: Grid, form: str | None = None) -> Scene:
    """A random scene on an image of `size` (width, height); `form` picks one of FORMS."""
    scene = Scene(*size, grid, background(rng))
    form = form or rng.choices(list(FORMS), list(FORMS.values()))[0]
    if form in ("one", "two", "three"):
        add_things(rng, scene, different(rng, scene, ("one", "two", "three").index(form) + 1))
    elif form == "groups":
        add_things(rng, scene, groups(rng, scene))
    elif form == "text":
        add_lettering(rng, scene, split)
    elif form == "both":
        add_lettering(rng, scene, split, share=0.45)
        lower = Scene(scene.width, round(scene.height * 0.5), (max(1, grid[0] // 2), grid[1]), scene.background)
        add_things(rng, lower, different(rng, scene, 1))
        moved = lower.things[0]
        scene.things.append(Thing(**{**vars(moved), "y": moved.y + scene.height * 0.5}))
    return scene
