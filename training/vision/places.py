"""Questions on where things are, whether they are there, and what is written; see `questions` for the invariant."""

from __future__ import annotations

from random import Random

from training.dialogue import Split
from training.phrasing import capitalised
from training.vision import wordings as say
from training.vision.colours import COLOURS
from training.vision.questions import (
    Asked,
    Maker,
    background,
    colour,
    count,
    describe,
    shape,
    the_only,
    with_article,
    worded,
)
from training.vision.scenes import SHAPES, Scene, Thing
from training.vision.targets import letter_places

SIDES = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath"),
}


def side_of(scene: Scene, thing: Thing, other: Thing) -> set[str] | None:
    """On which sides of `other` the thing clearly is; None where one of them is a matter of taste."""
    sides: set[str] = set()
    across, down = (thing.x - other.x) / scene.width, (thing.y - other.y) / scene.height
    for offset, before, after in ((across, "left", "right"), (down, "above", "below")):
        if 0.06 < abs(offset) < 0.16:
            return None
        if abs(offset) >= 0.16:
            sides.add(before if offset < 0 else after)
    return sides


def _named(scene: Scene, rng: Random, thing: Thing) -> str:
    """The thing by its shape where that is enough, else by colour and shape."""
    alone = sum(t.shape == thing.shape for t in scene.things) == 1
    return thing.shape if alone and rng.random() < 0.7 else thing.name


def _by_sides(scene: Scene, anchor: Thing) -> dict[str, list[Thing]] | None:
    found: dict[str, list[Thing]] = {side: [] for side in SIDES}
    for other in scene.things:
        if other is anchor:
            continue
        sides = side_of(scene, other, anchor)
        if sides is None:
            return None
        for side in sides:
            found[side].append(other)
    return found


def beside(rng: Random, split: Split, scene: Scene) -> Asked | None:
    """What is on a side of a thing: one thing, or nothing."""
    anchor = the_only(rng, scene, lambda t: t.name)
    if anchor is None or (found := _by_sides(scene, anchor)) is None:
        return None
    filled = [side for side, others in found.items() if len(others) == 1]
    empty = [side for side, others in found.items() if not others]
    if len(scene.things) == 1 and rng.random() < 0.8:
        return None
    side = rng.choice(filled) if filled and rng.random() < 0.85 else rng.choice(empty) if empty else None
    if side is None:
        return None
    question = worded(rng, split, say.BESIDE, x=_named(scene, rng, anchor), y=rng.choice(SIDES[side][:2]))
    if not found[side]:
        return Asked("beside: nothing", question, "Nothing.", "nothing")
    text = with_article(found[side][0].name)
    found_at = ((found[side][0].name, found[side][0].x, found[side][0].y),)
    return Asked("beside", question, capitalised(text) + ".", text, opening="It is", found=found_at)


def is_beside(rng: Random, split: Split, scene: Scene) -> Asked | None:
    """Whether one thing is on a side of another."""
    if len(scene.things) < 2:
        return None
    first, second = rng.sample(scene.things, 2)
    names = [t.name for t in scene.things]
    sides = side_of(scene, first, second)
    if sides is None or names.count(first.name) > 1 or names.count(second.name) > 1:
        return None
    side = rng.choice(sorted(sides)) if sides and rng.random() < 0.5 else rng.choice(list(SIDES))
    relation = f"{rng.choice(SIDES[side])} the {_named(scene, rng, second)}"
    question = worded(rng, split, say.IS_BESIDE, x=_named(scene, rng, first), y=relation)
    return _yes_or_no("is it beside", question, side in sides, first)


def _yes_or_no(kind: str, question: str, right: bool, seen: Thing | None = None) -> Asked:
    """An answer that is found at `seen`, where there is something to see."""
    word = "yes" if right else "no"
    found = ((word, seen.x, seen.y),) if seen else ()
    return Asked(kind, question, capitalised(word) + ".", word, options=("yes", "no"), found=found)


def _part(share: float) -> int | None:
    """0, 1 or 2 for the thirds; None near their borders."""
    return 0 if share < 0.32 else 2 if share > 0.68 else 1 if 0.4 < share < 0.6 else None


def where(rng: Random, split: Split, scene: Scene) -> Asked | None:
    """The part of the image that a thing is in."""
    thing = the_only(rng, scene, lambda t: t.name)
    if thing is None:
        return None
    across, down = _part(thing.x / scene.width), _part(thing.y / scene.height)
    if across is None or down is None:
        return None
    row, column = ("at the top", "", "at the bottom")[down], ("left", "", "right")[across]
    middle = f"on the {column}" if column else "in the center"
    text = f"{row} {column}".strip() if row else middle
    question = worded(rng, split, say.WHERE, x=_named(scene, rng, thing))
    found = ((text, thing.x, thing.y),)
    return Asked("where", question, capitalised(text) + ".", text, opening="It is", found=found)


def exists(rng: Random, split: Split, scene: Scene) -> Asked | None:
    """Whether there is such a thing; half of the answers are no, most of them near misses."""
    present = bool(scene.things) and rng.random() < 0.5
    some = rng.choice(scene.things) if scene.things else None
    form = rng.random()
    if some and present:
        name = some.name if form < 0.4 else some.shape if form < 0.85 else f"{some.colour} shape"
    else:
        shape_name, colour_name = rng.choice(SHAPES), rng.choice(COLOURS)
        if some and form < 0.5:
            shape_name, colour_name = rng.choice(((some.shape, colour_name), (shape_name, some.colour)))
        name = f"{colour_name} {shape_name}" if form < 0.6 else shape_name
    words = name.split()
    meant = [
        t
        for t in scene.things
        if (t.shape == words[-1] or words[-1] == "shape") and (len(words) < 2 or t.colour == words[0])
    ]
    question = worded(rng, split, say.EXISTS, x=with_article(name))
    return _yes_or_no("exists", question, bool(meant), rng.choice(meant) if meant else None)


def has_text(rng: Random, split: Split, scene: Scene) -> Asked | None:
    """Whether something is written."""
    name = rng.choice(("any text", "a word", "a number", "text"))
    line = scene.lettering
    if line and (name == "a word") != (line.kind in ("word", "words")) and name in ("a word", "a number"):
        right = name == "a number" and line.kind == "number"
    else:
        right = line is not None and (name != "a number" or line.kind == "number")
    return _yes_or_no("exists: text", worded(rng, split, say.EXISTS, x=name), right)


def read(rng: Random, split: Split, scene: Scene) -> Asked | None:
    """What is written, letter for letter; or that nothing is."""
    line = scene.lettering
    if line is None:
        answer = "There is no text."
        return Asked("read: nothing", worded(rng, split, say.READ), answer, answer) if rng.random() < 0.1 else None
    if rng.random() < 0.55 or line.kind == "words":
        question = worded(rng, split, say.READ)
    else:
        name = "digit" if line.kind == "number" and len(line.text) == 1 and rng.random() < 0.5 else line.kind
        question = worded(rng, split, say.READ_AS, x=name)
    opening = rng.choice(("The text says", "It says", "The word is" if line.kind == "word" else "The text is"))
    found = tuple(letter_places(line))
    return Asked(f"read: {line.kind}", question, line.text, line.text, opening=opening, found=found)


# How often each kind is tried on a scene; those that do not fit it fall away.
MAKERS: dict[Maker, float] = {
    describe: 32,
    count: 70,
    colour: 20,
    shape: 8,
    background: 4,
    beside: 18,
    is_beside: 6,
    where: 6,
    exists: 7,
    has_text: 1,
    read: 18,
}


def ask(rng: Random, split: Split, scene: Scene, tried: set[Maker] | None = None) -> Asked:
    """One question that fits the scene, of a kind not tried yet as long as one is easily found."""
    tried = set() if tried is None else tried
    while True:
        maker = rng.choices(list(MAKERS), list(MAKERS.values()))[0]
        if not scene.things and maker in (count, exists) and rng.random() < 0.8:
            continue
        if maker in tried and rng.random() < (0.3 if maker is count else 0.8):
            continue
        if (asked := maker(rng, split, scene)) is not None:
            tried.add(maker)
            return asked
