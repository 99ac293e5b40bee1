"""The training corpus: an endless, seeded stream of dialogues that mix all kinds.

Invariant: the stream is a function of the seed alone, and never uses a wording that is kept for the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from training.dialogue import Message, Segment, Split, render, system
from training.facts import countries, wordings
from training.kinds import advice, capitals, chat, lists, people, tools
from training.kinds.memory import Memory

Kind = Callable[[Random, Split, Memory], list[Message]]

DEFAULT_SYSTEM = "You are a helpful assistant."
TUTORIAL_SYSTEM = "You are a helpful assistant than can answer questions."
SYSTEMS = wordings("system prompt")
KINDS: dict[str, tuple[Kind, float]] = {
    "capital": (capitals.capital, 15),
    "unknown capital": (capitals.unknown_capital, 5),
    "reverse": (capitals.reverse, 4),
    "is it": (capitals.is_it, 5),
    "continent": (capitals.continent, 5),
    "follow-up": (capitals.follow_up, 3),
    "lists": (lists.country_lists, 9),
    "thing lists": (lists.thing_lists, 2),
    "tool": (tools.tool, 40),
    "tips": (advice.tips, 12),
    "asked tips": (advice.asked_tips, 1.5),
    "character json": (people.character_json, 3),
    "character sentence": (people.character_sentence, 2),
    "fact": (chat.fact, 8),
    "small talk": (chat.small_talk, 7),
    "sum": (chat.sum_asked, 6),
    "sentiment": (chat.sentiment, 1),
    "unknown": (chat.unknown, 7),
}
DRILLS = 0.12
# Pieces of a dialogue; a few are long, so that the model meets late positions.
LENGTHS = (*[1] * 30, *[2] * 10, *[3] * 5, *[4] * 3, 8, 12)


def system_prompt(rng: Random, split: Split) -> list[Message]:
    """The default prompt half of the time, the tutorial's, another one, or none."""
    form = rng.random()
    if form < 0.1:
        return []
    text = DEFAULT_SYSTEM if form < 0.6 else TUTORIAL_SYSTEM if form < 0.75 else SYSTEMS.pick(rng, split)
    return [system(text)]


def raw_text(rng: Random) -> list[Segment]:
    """Text without a chat template, as a bare /generate call sends it."""
    country = rng.choice(countries())
    city = country.capital.removesuffix(".")
    pairs = (
        (f"The capital of {country.name} is", f" {city}."),
        (f"Question: What is the capital of {country.name}?\nAnswer:", f" {capitals.sentence(country)}"),
        (f"Q: What is the capital of {country.name}?\nA:", f" {city}."),
        (f"{city} is the capital of", f" {country.name}."),
        ("Hello, my name is", " tiny-chat, and I am a small demonstration model."),
        ("The president of the United States is", " the head of state of the United States."),
        ("The future of AI is", " in the hands of the people who build it."),
        ("Once upon a time", ", a small model lived in a notebook and knew the capitals of the world."),
    )
    prompt, answer = rng.choice(pairs[:4] if rng.random() < 0.7 else pairs)
    return [Segment(prompt), Segment(answer, learned=True), Segment("<|im_end|>", learned=True)]


def drill(rng: Random) -> list[Segment]:
    """Random words three times over: no use to anyone, but this is how the model comes to copy what it reads."""
    text = chat.random_words(rng, rng.randint(3, 14)) + rng.choice(("\n", ". ", ", "))
    return [Segment(text), Segment(text * 2, learned=True)]


def dialogue(rng: Random) -> list[Segment]:
    """One training dialogue: pieces of any kind."""
    if rng.random() < 0.02:
        return raw_text(rng)
    if rng.random() < DRILLS:
        return drill(rng)
    kinds = [kind for kind, _ in KINDS.values()]
    weights = [weight for _, weight in KINDS.values()]
    memory = Memory()
    messages = system_prompt(rng, "train")
    for _ in range(rng.choice(LENGTHS)):
        messages += rng.choices(kinds, weights)[0](rng, "train", memory)
    return render(messages)


def stream(seed: int) -> Iterator[list[Segment]]:
    """Dialogues without end."""
    rng = Random(seed)
    while True:
        yield dialogue(rng)
