"""Draws scenes with Pillow: backgrounds, shapes, lettering, noise; with and without antialiasing."""

from __future__ import annotations

import math
from functools import cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from training.vision.colours import RGB
from training.vision.scenes import Background, Lettering, Scene, Thing

Point = tuple[float, float]


def _regular(corners: int, turn: float = 0.0) -> list[Point]:
    return [
        (math.sin(turn + 2 * math.pi * i / corners), -math.cos(turn + 2 * math.pi * i / corners))
        for i in range(corners)
    ]


def _star() -> list[Point]:
    outer, inner = _regular(5), _regular(5, math.pi / 5)
    return [point for a, b in zip(outer, inner, strict=True) for point in (a, (b[0] * 0.42, b[1] * 0.42))]


def _heart() -> list[Point]:
    points: list[Point] = []
    for i in range(28):
        t = 2 * math.pi * i / 28
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((math.sin(t) ** 3, -(y + 2.5) / 16))
    return points


@cache
def outline(shape: str) -> tuple[Point, ...]:
    """Corners of the shape inside the square from -1 to 1; round ones have many."""
    arm, half = 0.36, math.sqrt(0.5)
    corners: dict[str, list[Point]] = {
        "circle": _regular(36),
        "oval": _regular(36),
        "square": [(-half, -half), (half, -half), (half, half), (-half, half)],
        "rectangle": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "triangle": [(0, -0.9), (0.95, 0.8), (-0.95, 0.8)],
        "diamond": [(0, -1), (0.8, 0), (0, 1), (-0.8, 0)],
        "hexagon": _regular(6, math.pi / 6),
        "star": _star(),
        "heart": _heart(),
        "cross": [
            *((-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)),
            *((arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm)),
        ],
    }
    return tuple(corners[shape])


def corners_of(thing: Thing, scale: float) -> list[Point]:
    """The corners of the shape on the canvas; a stretched one keeps its radius as half its width."""
    cosine, sine = math.cos(math.radians(thing.angle)), math.sin(math.radians(thing.angle))
    wide, tall = thing.radius * scale, thing.radius * scale / thing.stretch
    return [
        (thing.x * scale + x * wide * cosine - y * tall * sine, thing.y * scale + x * wide * sine + y * tall * cosine)
        for x, y in outline(thing.shape)
    ]


def draw_thing(draw: ImageDraw.ImageDraw, thing: Thing, scale: float) -> None:
    thin = max(1, round(thing.radius * scale * 0.07))
    if thing.shape in ("circle", "oval") and thing.angle % 90 == 0:
        a, b = thing.radius * scale, thing.radius * scale / thing.stretch
        a, b = (a, b) if thing.angle % 180 == 0 else (b, a)
        box = (thing.x * scale - a, thing.y * scale - b, thing.x * scale + a, thing.y * scale + b)
        if thing.hollow:
            draw.ellipse(box, outline=thing.rgb, width=max(2, thin * 3))
        else:
            draw.ellipse(box, fill=thing.rgb, outline=thing.edge, width=thin)
        return
    corners = corners_of(thing, scale)
    if thing.hollow:
        draw.line([*corners, *corners[:2]], fill=thing.rgb, width=max(2, thin * 3), joint="curve")
    else:
        draw.polygon(corners, fill=thing.rgb)
        if thing.edge:
            draw.line([*corners, corners[0]], fill=thing.edge, width=thin, joint="curve")


def draw_lettering(canvas: Image.Image, line: Lettering) -> None:
    """Text, on a plate when it has one; turned text is drawn apart and pasted."""
    font = line.font.at(line.size)
    draw = ImageDraw.Draw(canvas)
    if line.plate:
        left, top, right, bottom = font.getbbox(line.text, anchor="mm")
        margin = line.size * 0.2
        box = (line.x + left - margin, line.y + top - margin, line.x + right + margin, line.y + bottom + margin)
        draw.rectangle(box, fill=line.plate)
    if not line.angle:
        draw.text((line.x, line.y), line.text, fill=line.rgb, font=font, anchor="mm")
        return
    mask = Image.new("L", canvas.size)
    ImageDraw.Draw(mask).text((line.x, line.y), line.text, fill=255, font=font, anchor="mm")
    mask = mask.rotate(line.angle, Image.Resampling.BILINEAR, center=(line.x, line.y))
    canvas.paste(line.rgb, mask=mask)


@cache
def _noise() -> np.ndarray:
    return np.random.default_rng(3).normal(0.0, 1.0, (1024, 1024, 3)).astype(np.float32)


def blank(ground: Background, size: tuple[int, int]) -> Image.Image:
    """The background, without its noise."""
    if ground.second is None:
        return Image.new("RGB", size, ground.rgb)
    ramp = np.linspace(0, 1, 64)[:, None]
    colours = np.array(ground.rgb) * (1 - ramp) + np.array(ground.second) * ramp
    strip = Image.fromarray(colours.astype(np.uint8)[None] if ground.across else colours.astype(np.uint8)[:, None])
    return strip.resize(size, Image.Resampling.BILINEAR)


def with_noise(rng: Random, image: Image.Image, strength: float) -> Image.Image:
    x, y = rng.randrange(1024 - image.width), rng.randrange(1024 - image.height)
    noise = _noise()[y : y + image.height, x : x + image.width] * strength
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def paint(rng: Random, scene: Scene) -> Image.Image:
    """The image of a scene; a third of those with shapes are drawn at twice the size and reduced."""
    size = (scene.width, scene.height)
    smooth = 2 if scene.things and scene.width * scene.height < 70_000 and rng.random() < 0.4 else 1
    canvas = blank(scene.background, (scene.width * smooth, scene.height * smooth))
    draw = ImageDraw.Draw(canvas)
    for thing in scene.things:
        draw_thing(draw, thing, smooth)
    if smooth > 1:
        canvas = canvas.reduce(smooth)
    for line in [scene.lettering, *scene.lines]:
        if line:
            draw_lettering(canvas, line)
    if scene.background.noise:
        canvas = with_noise(rng, canvas, scene.background.noise)
    return canvas if canvas.size == size else canvas.resize(size)


def sample_rgb(image: Image.Image, at: Point) -> RGB:
    """The colour at a place of the image."""
    red, green, blue = np.asarray(image)[int(at[1]), int(at[0])].tolist()
    return red, green, blue
