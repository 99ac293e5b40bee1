"""Dialogues about images: one beginning with the images, and several questions that each go on from there.

A question never sees another one of its image, so it stands as it would in a dialogue of its own, while the images and the
beginning are computed once. Some beginnings hold a first question with its answer, some questions a second turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from training.corpus import system_prompt
from training.dialogue import Segment, Split, render, said
from training.phrasing import capitalised, casually
from training.vision import wordings as say
from training.vision.model import END, IMAGE, START
from training.vision.places import ask
from training.vision.questions import Asked, Maker, description, joined, with_article, worded
from training.vision.scenes import Scene

PICTURE = START + IMAGE + END
ORDINALS = ("first", "second", "third")
TURN_END = "<|im_end|>\n"
TO_ANSWER = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Looking(Segment):
    """Text that the model is to generate, and where in the image its parts are found."""

    found: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True)
class Dialogue:
    """`beginning` is shared; each of `branches` is (kind, segments that follow it)."""

    beginning: list[Segment]
    branches: list[tuple[str, list[Segment]]]
    # Width and height of the image that the branches are about, when it is one.
    size: tuple[int, int] | None = None


def answered(rng: Random, split: Split, asked: Asked, before: str = "", after: str = "") -> list[Segment]:
    """The question between `before` and `after`, and its answer: plain, in a word, chosen, or after an opening."""
    question = casually(rng, asked.question)
    form = rng.random()
    kind = asked.kind.split(":")[0]
    if asked.options and form < 0.05:
        listed = rng.choice((", ".join(asked.options), " or ".join(asked.options)))
        prompt = f"{question} {say.CHOOSE.pick(rng, split).format(x=listed)}"
        return _turn(before + prompt + after, [said(asked.word)])
    if form < 0.1 and (asked.options or kind == "count"):
        word = capitalised(asked.word)
        return _turn(f"{before}{question} {say.BRIEF.pick(rng, split)}{after}", [said(word)])
    if asked.opening and form > 0.94:
        rest = asked.answer if kind == "read" else asked.answer[0].lower() + asked.answer[1:]
        pieces = (
            [Segment(asked.opening), said(" " + rest)]
            if rng.random() < 0.5
            else [Segment(asked.opening + " "), said(rest)]
        )
        return _turn(before + question + after, pieces)
    return _turn(before + question + after, [Looking(asked.answer, True, asked.found)])


def _turn(question: str, answer: list[Segment]) -> list[Segment]:
    return [Segment(question), Segment(TO_ANSWER), *answer, said(TURN_END)]


def again(segments: list[Segment]) -> list[Segment]:
    """The segments as a further turn of the user."""
    return [Segment("<|im_start|>user\n"), *segments]


def about_one(rng: Random, split: Split, scene: Scene, branches: int) -> Dialogue:
    """Questions about one image, which comes before or after its question."""
    start = render(system_prompt(rng, split))
    tried: set[Maker] = set()
    asked = [ask(rng, split, scene, tried) for _ in range(branches)]
    form = rng.random()
    if form < 0.72:
        gap = rng.choice(("", "", "", "\n", "\n", " "))
        chains = [answered(rng, split, a, before=gap) for a in asked]
        for chain in chains:
            if split == "train" and rng.random() < 0.05:
                chain += again(answered(rng, split, ask(rng, split, scene)))
        beginning = [*start, Segment("<|im_start|>user\n" + PICTURE)]
        size = (scene.width, scene.height)
        return Dialogue(beginning, [(a.kind, chain) for a, chain in zip(asked, chains, strict=True)], size)
    if form < 0.75:
        return raw(rng, asked)
    first, gap = ask(rng, split, scene), rng.choice(("", " ", "\n"))
    around = {"after": gap + PICTURE} if form < 0.9 else {"before": PICTURE + gap}
    opened = answered(rng, split, first, **around)
    beginning = [*start, *again(opened)]
    return Dialogue(beginning, [(a.kind, again(answered(rng, split, a))) for a in asked])


def raw(rng: Random, asked: list[Asked]) -> Dialogue:
    """No chat template, as a program sends it that only concatenates."""
    form = rng.choice(("\nQuestion: {}\nAnswer:", "\nQ: {}\nA:", " {}"))
    branches = [(a.kind, [Segment(form.format(a.question)), said(" " + a.answer), said("<|im_end|>")]) for a in asked]
    return Dialogue([Segment(PICTURE)], branches)


def about_several(rng: Random, split: Split, scenes: list[Scene], branches: int) -> Dialogue:
    """Questions about two or three images, shown at once or one after the other."""
    start = render(system_prompt(rng, split))
    form = rng.random()
    if form < 0.3:
        beginning = [*start]
        for scene in scenes[:-1]:
            beginning += again(answered(rng, split, ask(rng, split, scene), before=PICTURE))
        beginning.append(Segment("<|im_start|>user\n" + PICTURE))
    else:
        gap = rng.choice(("", "", "\n", " "))
        naming = rng.choice(("", "", "Image {}: ", "Picture {}: "))
        shown = gap.join(naming.format(i + 1) + PICTURE for i in range(len(scenes)))
        beginning = [*start, Segment("<|im_start|>user\n" + shown)]
    made: list[tuple[str, list[Segment]]] = []
    while len(made) < branches:
        if form < 0.3 and rng.random() < 0.5:
            asked = ask(rng, split, scenes[-1])
            asked = asked if asked.kind.startswith(("describe", "colour", "shape", "read")) else None
        else:
            asked = of_several(rng, split, scenes)
        if asked:
            made.append((asked.kind, answered(rng, split, asked)))
    return Dialogue(beginning, made)


def of_several(rng: Random, split: Split, scenes: list[Scene]) -> Asked | None:
    """A question that needs all the images, or names one of them."""
    shown = [description(scene) for scene in scenes]
    form = rng.random()
    if form < 0.15:
        return Asked(
            "images: count", worded(rng, split, say.HOW_MANY_IMAGES), f"{len(scenes)} images.", str(len(scenes))
        )
    if form < 0.65:
        index = rng.randrange(len(scenes))
        name = "last" if index == len(scenes) - 1 and rng.random() < 0.3 else ORDINALS[index]
        text = shown[index]
        if text is None:
            return None
        return Asked("images: nth", worded(rng, split, say.NTH, x=name), capitalised(text) + ".", text)
    if form < 0.8:
        if not all(shown):
            return None
        parts = [f"the {ORDINALS[i]} {text}" for i, text in enumerate(shown)]
        parts[0] = f"the first image shows {shown[0]}"
        return Asked("images: each", worded(rng, split, say.EVERY), capitalised(joined(parts)) + ".", "")
    things = [t.name for scene in scenes for t in scene.things]
    if not things:
        return None
    name = rng.choice(things)
    holders = [i for i, scene in enumerate(scenes) if name in {t.name for t in scene.things}]
    if len(holders) > 1:
        return None
    word = ORDINALS[holders[0]]
    question = worded(rng, split, say.WHICH_IMAGE, x=with_article(name))
    return Asked("images: which", question, f"The {word}.", word)
