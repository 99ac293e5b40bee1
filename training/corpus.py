"""The training corpus: an endless, seeded stream of dialogues that mix all kinds.

Invariant: the stream is a function of the seed alone, and never uses a wording that is kept for the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from training.dialogue import Message, Segment, Split, render, system
from training.facts import countries
from training.kinds import advice, capitals, chat, lists, people, tools
from training.kinds.memory import Memory
from training.phrasing import Wordings

Kind = Callable[[Random, Split, Memory], list[Message]]

DEFAULT_SYSTEM = "You are a helpful assistant."
TUTORIAL_SYSTEM = "You are a helpful assistant than can answer questions."
SYSTEMS = Wordings(
    train=(
        "You are a helpful assistant that can answer questions.",
        "You are a friendly assistant.",
        "You are a helpful AI assistant.",
        "You are an assistant.",
        "You are a geography teacher.",
        "You are an expert in geography.",
        "Answer the questions of the user.",
        "You are a helpful and honest assistant. Answer briefly.",
        "You are a knowledgeable assistant. Be concise.",
        "You are a chatbot.",
        "You answer questions about the world.",
        "Be polite and helpful.",
        "You are tiny-chat, a small model.",
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    ),
    held_out=("You are a kind and helpful tutor.", "You are a smart assistant. Answer the question."),
)
KINDS: dict[str, tuple[Kind, float]] = {
    "capital": (capitals.capital, 25),
    "unknown capital": (capitals.unknown_capital, 5),
    "reverse": (capitals.reverse, 5),
    "is it": (capitals.is_it, 4),
    "continent": (capitals.continent, 3),
    "lists": (lists.country_lists, 11),
    "tool": (tools.tool, 24),
    "tips": (advice.tips, 5),
    "asked tips": (advice.asked_tips, 1.5),
    "character json": (people.character_json, 6),
    "character sentence": (people.character_sentence, 3),
    "fact": (chat.fact, 6),
    "small talk": (chat.small_talk, 7),
    "small sum": (chat.small_sum, 4),
    "unknown": (chat.unknown, 13),
}


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


def dialogue(rng: Random) -> list[Segment]:
    """One training dialogue: one to four pieces of any kind."""
    if rng.random() < 0.02:
        return raw_text(rng)
    kinds = [kind for kind, _ in KINDS.values()]
    weights = [weight for _, weight in KINDS.values()]
    memory = Memory()
    messages = system_prompt(rng, "train")
    for _ in range(rng.choice((1, 1, 1, 1, 1, 1, 2, 2, 3, 4))):
        messages += rng.choices(kinds, weights)[0](rng, "train", memory)
    return render(messages)


def stream(seed: int) -> Iterator[list[Segment]]:
    """Dialogues without end."""
    rng = Random(seed)
    while True:
        yield dialogue(rng)
