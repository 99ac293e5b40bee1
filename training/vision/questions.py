"""Questions about one scene with their answers, kind by kind.

Invariant: an answer follows from the scene alone; where it would be a matter of taste, the question is not asked.
Answers are short sentences without a verb ("A red circle."); lists run from left to right, or from the top down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from training.dialogue import Split
from training.facts import Wordings
from training.phrasing import capitalised
from training.vision import wordings as say
from training.vision.colours import COLOURS
from training.vision.scenes import SHAPES, Scene, Thing
from training.vision.targets import letter_places

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Asked:
    """A question of a kind, its answer, the answer in a word, and a beginning that the answer may be given."""

    kind: str
    question: str
    answer: str
    word: str
    options: tuple[str, ...] = ()
    opening: str | None = None
    # Where in the image each part of the answer is found: (part, x, y) in the order of the answer.
    found: tuple[tuple[str, float, float], ...] = ()


Maker = Callable[[Random, Split, Scene], Asked | None]


def worded(rng: Random, split: Split, ways: Wordings, x: str = "", y: str = "") -> str:
    """One of the ways to ask, filled in."""
    spelling, picture = rng.choice(("colour", "color")), rng.choice(("image", "picture"))
    return ways.pick(rng, split).format(c=spelling, p=picture, x=x, y=y)


def plural(name: str) -> str:
    return name + ("es" if name.endswith("s") else "s")


def with_article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def numbered(count: int, name: str) -> str:
    return f"{count} {name if count == 1 else plural(name)}"


def joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def in_order(scene: Scene) -> list[Thing] | None:
    """The things from left to right, or from the top down where they are spread that way; None where it is unclear."""
    for spread, extent in (
        (lambda t: t.x, scene.width),
        (lambda t: t.y, scene.height),
    ):
        ordered = sorted(scene.things, key=spread)
        if all(spread(b) - spread(a) > 0.12 * extent for a, b in pairwise(ordered)):
            return ordered
    return None


def lettering_name(scene: Scene) -> str:
    line = scene.lettering
    return f"the {line.kind} {line.text}" if line else ""


def description(scene: Scene) -> str | None:
    """What is in the image, in lower case and without a full stop; None where the order is unclear."""
    parts: list[str] = []
    counts = Counter(t.name for t in scene.things)
    if len(scene.things) > 3 or (len(counts) < len(scene.things) and counts):
        parts = grouped(scene)
    elif scene.things:
        ordered = in_order(scene)
        if ordered is None:
            return None
        parts = [with_article(t.name) for t in ordered]
    if scene.lettering:
        parts = [lettering_name(scene), *parts]
    if parts:
        return joined(parts)
    return f"nothing, only a {scene.background.colour} background" if scene.background.colour else "nothing"


def grouped(scene: Scene) -> list[str]:
    """Things that are many: by shape and colour where that leaves two groups at most, else by shape; largest first."""
    names = Counter(t.name for t in scene.things)
    if len(names) > 2:
        names = Counter(t.shape for t in scene.things)
    order = sorted(names, key=lambda n: (-names[n], n))
    return [numbered(names[n], n) if names[n] > 1 else with_article(n) for n in order]


def parts_of(scene: Scene) -> tuple[tuple[str, float, float], ...]:
    """The parts of a description, each with its place: up to three different things, or the letters."""
    if scene.lettering and not scene.things:
        return tuple(letter_places(scene.lettering))
    ordered = in_order(scene)
    if scene.lettering or ordered is None or len(ordered) > 3 or len({t.name for t in ordered}) < len(ordered):
        return ()
    return tuple((t.name, t.x, t.y) for t in ordered)


def describe(rng: Random, split: Split, scene: Scene) -> Asked | None:
    text = description(scene)
    if text is None:
        return None
    question = worded(rng, split, say.DESCRIBE)
    kind = "describe: text" if scene.lettering else f"describe: {min(len(scene.things), 4)}"
    opening = rng.choice(("The image shows", "I see", "This is"))
    return Asked(kind, question, capitalised(text) + ".", text, opening=opening, found=parts_of(scene))


def count(rng: Random, split: Split, scene: Scene) -> Asked | None:
    """All shapes, those of one shape, of one colour, or of both; sometimes of something that is not there."""
    things = scene.things
    form = rng.random()
    if not things or form < 0.12:
        name = rng.choice((rng.choice(SHAPES), f"{rng.choice(COLOURS)} {rng.choice(SHAPES)}"))
    elif form < 0.3:
        name = rng.choice(("shape", "object", "shape"))
    elif form < 0.75:
        name = rng.choice(things).shape
    elif form < 0.88:
        name = rng.choice(things).name
    else:
        name = f"{rng.choice(things).colour} {rng.choice(('shape', 'object'))}"
    words = name.split()
    meant = [
        t
        for t in things
        if (words[-1] in ("shape", "object") or t.shape == words[-1]) and (len(words) < 2 or t.colour == words[0])
    ]
    total = len(meant)
    # Any of them will do to look at: where they are several, each gets its share of the looks.
    found = tuple((str(total), t.x, t.y) for t in rng.sample(meant, min(1, total)))
    question = worded(rng, split, say.COUNT, x=plural(name))
    opening = "There are" if total != 1 else "There is"
    return Asked(f"count: {total}", question, numbered(total, name) + ".", str(total), opening=opening, found=found)


def the_only(rng: Random, scene: Scene, key: Callable[[Thing], str]) -> Thing | None:
    """A thing that is the only one with its key."""
    counts = Counter(key(t) for t in scene.things)
    only = [t for t in scene.things if counts[key(t)] == 1]
    return rng.choice(only) if only else None


def _options(rng: Random, right: str, pool: tuple[str, ...]) -> tuple[str, ...]:
    others = rng.sample([p for p in pool if p != right], rng.randint(1, 3))
    return tuple(rng.sample([right, *others], len(others) + 1))


def colour(rng: Random, split: Split, scene: Scene) -> Asked | None:
    """The colour of a thing named by its shape, of the only thing, of the text, or of something absent."""
    if scene.lettering and not scene.things:
        line = scene.lettering
        name = rng.choice(("text", line.kind, "lettering" if line.kind == "words" else line.kind))
        right, question = line.colour, worded(rng, split, say.COLOUR, x=name)
        return _colour_asked(rng, "colour of text", question, right, f"The {name} is")
    alike = len({t.name for t in scene.things}) == 1
    kind = "colour: 1" if len(scene.things) == 1 else "colour: of several"
    if rng.random() < 0.08:
        name = rng.choice([s for s in SHAPES if s not in {t.shape for t in scene.things}])
        return Asked("colour of nothing", worded(rng, split, say.COLOUR, x=name), f"There is no {name}.", "none")
    if alike and len(scene.things) > 1:
        name = plural(scene.things[0].shape)
        question = f"What {rng.choice(('colour', 'color'))} are the {name}?"
        return _colour_asked(rng, kind, question, scene.things[0].colour, f"The {name} are")
    if not (thing := the_only(rng, scene, lambda t: t.shape)):
        return None
    names = (thing.shape, thing.shape, "shape", "object") if len(scene.things) == 1 else (thing.shape,)
    name = rng.choice(names)
    if len(names) > 1 and rng.random() < 0.3:
        return _colour_asked(rng, kind, worded(rng, split, say.COLOUR_OF_ONE), thing.colour, "It is", thing)
    return _colour_asked(rng, kind, worded(rng, split, say.COLOUR, x=name), thing.colour, f"The {name} is", thing)


def _colour_asked(rng: Random, kind: str, question: str, right: str, opening: str, thing: Thing | None = None) -> Asked:
    found = ((right, thing.x, thing.y),) if thing else ()
    return Asked(kind, question, capitalised(right) + ".", right, _options(rng, right, COLOURS), opening, found)


def shape(rng: Random, split: Split, scene: Scene) -> Asked | None:
    """The shape of a thing named by its colour, or of the only thing."""
    if not (thing := the_only(rng, scene, lambda t: t.colour)):
        return None
    name = f"the {thing.colour} {rng.choice(('object', 'shape', 'thing', 'one'))}"
    if len(scene.things) == 1:
        name = rng.choice(("it", "this", "the object", name))
    options = _options(rng, thing.shape, SHAPES)
    found = ((thing.shape, thing.x, thing.y),)
    answer = capitalised(with_article(thing.shape)) + "."
    kind = "shape: 1" if len(scene.things) == 1 else "shape: of several"
    return Asked(kind, worded(rng, split, say.SHAPE, x=name), answer, thing.shape, options, "It is", found)


def background(rng: Random, split: Split, scene: Scene) -> Asked | None:
    ground = scene.background
    if ground.colour is None or ground.noise > 15:
        return None
    return _colour_asked(rng, "background", worded(rng, split, say.GROUND), ground.colour, "The background is")
