"""tiny-vision on images that its training never used: drawn here, by another script, in other sizes and with another font."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from PIL import Image, ImageDraw, ImageFont

from kernel_engine.loading import load_model
from kernel_engine.model import Model
from kernel_engine.server_args import ServerArgs

from .support import StepEngine

COLOURS = {
    "red": "#e02020",
    "green": "#109030",
    "blue": "#2040e0",
    "yellow": "#f8e020",
    "purple": "#802090",
    "black": "#101010",
}
SHAPES = ("circle", "square", "triangle", "star")
SIZES = ((100, 100), (320, 240), (240, 320), (512, 512), (150, 130))
NUMBERS = ("zero", "one", "two", "three", "four", "five")
SYSTEM, PLACE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
    "<|vision_start|><|image_pad|><|vision_end|>",
)
SCALE = 3
"""Drawn so many times larger, then reduced, so that edges are smooth."""


@dataclass
class Drawing:
    """A sheet of paper, in units of its shorter side."""

    size: tuple[int, int]
    paper: str = "white"

    def __post_init__(self) -> None:
        self._image = Image.new("RGB", (self.size[0] * SCALE, self.size[1] * SCALE), self.paper)
        self._draw = ImageDraw.Draw(self._image)
        self._unit = min(self._image.size)

    @property
    def width(self) -> float:
        return self._image.width / self._unit

    @property
    def height(self) -> float:
        return self._image.height / self._unit

    def add(self, shape: str, colour: str, x: float, y: float, radius: float) -> None:
        corners = {
            "square": [(45 + 90 * i, 1.2) for i in range(4)],
            "triangle": [(-90 + 120 * i, 1.1) for i in range(3)],
            "star": [(-90 + 36 * i, 1.1 if i % 2 == 0 else 0.45) for i in range(10)],
            "circle": [(6 * i, 1.0) for i in range(60)],
        }[shape]
        points = [
            (x + radius * r * math.cos(math.radians(a)), y + radius * r * math.sin(math.radians(a))) for a, r in corners
        ]
        self._draw.polygon([(a * self._unit, b * self._unit) for a, b in points], fill=COLOURS[colour])

    def write(self, text: str, size: float) -> None:
        font = ImageFont.load_default(round(size * self._unit))
        middle = (self._image.width / 2, self._image.height / 2)
        self._draw.text(middle, text, fill="#101010", font=font, anchor="mm")

    @property
    def image(self) -> Image.Image:
        return self._image.resize(self.size, Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(ServerArgs(model_path="tiny-vision"))


def ask(model: Model, asked: list[tuple[Image.Image, str]]) -> list[str]:
    """Greedy answers, in lower case, to questions about images."""
    assert model.sight
    engine, rids = StepEngine(model, slots=20_000, rows=32), []
    for key, (image, question) in enumerate(asked):
        turns = f"{SYSTEM}<|im_start|>user\n{PLACE}{question}<|im_end|>\n<|im_start|>assistant\n"
        ids: list[int] = model.tokenizer(turns)["input_ids"]  # pyright: ignore[reportAssignmentType]
        prompt = model.sight.prompt(ids, [[model.sight.picture(image, -2 - 2 * key)]])
        rids.append(engine.add(prompt, max_new_tokens=24))
    engine.run()
    model.sight._kept.clear()  # the next test's images have the same keys
    return [engine.results[rid].text.lower() for rid in rids]


def share_of(answers: list[str], right: Callable[[int, str], bool]) -> float:
    wrong = [f"{number}: {answer!r}" for number, answer in enumerate(answers) if not right(number, answer)]
    print("wrong:", *wrong, sep="\n  ")
    return 1 - len(wrong) / len(answers)


def names(answer: str) -> set[str]:
    return set(re.findall("[a-z0-9]+", answer))


def one_shape(number: int, shape: str, colour: str) -> Image.Image:
    drawing = Drawing(SIZES[number % len(SIZES)])
    rng = random.Random(number)
    radius = rng.uniform(0.18, 0.38)
    x, y = (rng.uniform(radius * 1.2, side - radius * 1.2) for side in (drawing.width, drawing.height))
    drawing.add(shape, colour, x, y, radius)
    return drawing.image


def test_one_shape_and_its_colour(model: Model):
    looks = list(itertools.product(SHAPES, COLOURS))
    asked = [(one_shape(n, *look), "What is in the image?") for n, look in enumerate(looks)]
    assert share_of(ask(model, asked), lambda n, answer: set(looks[n]) <= names(answer)) >= 0.95


def test_the_colour_and_the_shape_asked_for(model: Model):
    looks = list(itertools.product(SHAPES, COLOURS))
    images = [one_shape(100 + n, *look) for n, look in enumerate(looks)]
    colours = ask(model, [(image, f"What colour is the {look[0]}?") for image, look in zip(images, looks, strict=True)])
    assert share_of(colours, lambda n, answer: looks[n][1] in names(answer)) >= 0.95
    shapes = ask(model, [(image, "What shape is it?") for image in images])
    assert share_of(shapes, lambda n, answer: looks[n][0] in names(answer)) >= 0.95


def test_how_many(model: Model):
    asked, counts = [], []
    for number in range(40):
        rng = random.Random(number)
        shape, colour = rng.choice(SHAPES[:3]), rng.choice(list(COLOURS))
        drawing = Drawing(SIZES[number % len(SIZES)])
        places = rng.sample([(c, r) for c in range(3) for r in range(3)], count := 1 + number % 5)
        for column, row in places:
            x, y = (column + 0.5) * drawing.width / 3, (row + 0.5) * drawing.height / 3
            drawing.add(shape, colour, x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.03), 0.11)
        asked.append((drawing.image, f"How many {shape}s are there?"))
        counts.append(count)
    answers = ask(model, asked)
    assert share_of(answers, lambda n, answer: bool({str(counts[n]), NUMBERS[counts[n]]} & names(answer))) >= 0.9


def test_what_is_left_and_right_of_it(model: Model):
    asked, wanted = [], []
    for number, (left, right) in enumerate(itertools.permutations(SHAPES, 2)):
        colours = random.Random(number).sample(list(COLOURS), 2)
        drawing = Drawing(SIZES[number % len(SIZES)])
        drawing.add(left, colours[0], drawing.width * 0.26, drawing.height * 0.5, 0.17)
        drawing.add(right, colours[1], drawing.width * 0.74, drawing.height * 0.5, 0.17)
        asked += [(drawing.image, f"What is left of the {right}?"), (drawing.image, f"What is right of the {left}?")]
        wanted += [left, right]
    assert share_of(ask(model, asked), lambda n, answer: wanted[n] in names(answer)) >= 0.95


def test_digits_and_short_words(model: Model):
    texts = [*"0123456789", "STOP", "OPEN", "YES", "NO", "EXIT", "CAT", "DOG", "SUN", "42", "17"]
    drawings = [Drawing(SIZES[n % len(SIZES)]) for n in range(len(texts))]
    for drawing, text in zip(drawings, texts, strict=True):
        drawing.write(text, 0.62 if len(text) == 1 else 0.3)
    answers = ask(model, [(drawing.image, "What does it say?") for drawing in drawings])
    assert share_of(answers, lambda n, answer: texts[n].lower() in names(answer)) >= 0.8
