"""Questions about one country: its capital in many wordings, the way back, yes or no, the continent."""

from __future__ import annotations

from random import Random

from training.dialogue import Message, Split, assistant, said, user
from training.facts import Country, countries
from training.kinds.memory import Memory
from training.phrasing import Wordings, capitalised, casually, made_up_name

UNKNOWN_COUNTRY = "I am a small demonstration model, and I do not know a country of that name."

ASK = Wordings(
    train=(
        *["What is the capital of {c}?"] * 6,
        *["What's the capital of {c}?", "What is the capital city of {c}?", "Which city is the capital of {c}?"] * 2,
        "What city is the capital of {c}?",
        "Tell me the capital of {c}.",
        "Please tell me the capital of {c}.",
        "Name the capital of {c}.",
        "Please name the capital of {c}.",
        "Give me the capital of {c}.",
        "Give me the name of the capital of {c}.",
        "What is the name of the capital of {c}?",
        "Do you know the capital of {c}?",
        "Do you know what the capital of {c} is?",
        "Can you tell me the capital of {c}?",
        "Can you name the capital city of {c}?",
        "Could you tell me what the capital of {c} is?",
        "I would like to know the capital of {c}.",
        "I want to know which city is the capital of {c}.",
        "I have a question: what is the capital of {c}?",
        "Hello! What is the capital of {c}?",
        "Hey, which city is the capital of {c}?",
        "The capital of {c}?",
        "Capital of {c}",
        "And the capital of {c}?",
        "And what about {c}? What is its capital?",
        "{c}: what is the capital?",
        "What is {c}'s capital?",
        "What is the capital of the country {c}?",
        "In which city is the government of {c}? I mean the capital.",
        "I am learning geography. What is the capital of {c}?",
        "I am going to {c}. What is its capital?",
    ),
    held_out=(
        "Could you please name the capital city of {c}?",
        "I forgot the capital of {c}. What is it?",
        "Please give me the name of the capital city of {c}.",
        "What city is {c}'s capital?",
        "Do you happen to know the capital of {c}?",
        "Which city is the capital city of {c}?",
        "Hi, what's the capital of {c}?",
        "Can you tell me what the capital city of {c} is?",
        "Tell me what the capital of {c} is.",
        "I need to know the capital of {c}.",
    ),
)
BRIEFLY = Wordings(
    train=("Answer with one word.", "Answer with the name only.", "Just the name.", "Only the city, please.", "Be brief."),
    held_out=("Please answer with the name only.", "One word, please."),
)
REVERSE = Wordings(
    train=(
        "Which country has {k} as its capital?",
        "{k} is the capital of which country?",
        "What country is {k} the capital of?",
        "{k} is the capital of what country?",
        "Of which country is {k} the capital?",
        "Which country's capital is {k}?",
    ),
    held_out=("What country has {k} as its capital?", "Tell me which country has the capital {k}."),
)
IS_IT = Wordings(
    train=("Is {k} the capital of {c}?", "Is the capital of {c} {k}?", "Is it true that {k} is the capital of {c}?"),
    held_out=("Am I right that {k} is the capital of {c}?",),
)
CONTINENT = Wordings(
    train=("On which continent is {c}?", "What continent is {c} on?", "Which continent is {c} in?", "Where is {c}?"),
    held_out=("What continent is {c} in?", "Where is {c} located?"),
)


def sentence(country: Country) -> str:
    return f"The capital of {country.name} is {country.capital.removesuffix('.')}."


def spoken_name(rng: Random, country: Country) -> str:
    return rng.choice(country.aliases) if country.aliases and rng.random() < 0.35 else country.name


def capital(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """A question for a capital; the answer in one line, in the frame the caller gives it."""
    country = rng.choice(countries())
    question = capitalised(ASK.pick(rng, split).format(c=spoken_name(rng, country)))
    form = rng.random()
    if form < 0.55:
        return [user(casually(rng, question)), assistant(said(sentence(country)))]
    if form < 0.72:
        return [user(f"Question: {question}"), assistant("Answer: ", said(sentence(country)))]
    if form < 0.78:
        return [user(f"Question: {question}"), assistant("Answer:", said(f" {sentence(country)}"))]
    if form < 0.88:
        brief = BRIEFLY.pick(rng, split)
        return [user(f"{question} {brief}"), assistant(said(country.capital))]
    if form < 0.92:
        return [user(question), assistant("Answer: ", said(sentence(country)))]
    if form < 0.96:
        return [user(question), assistant(f"The capital of {country.name} is ", said(f"{country.capital.removesuffix('.')}."))]
    return [user(question), assistant(f"The capital of {country.name} is", said(f" {country.capital.removesuffix('.')}."))]


def unknown_capital(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """A country that does not exist."""
    name = made_up_name(rng)
    if rng.random() < 0.2:
        name = rng.choice(("the Republic of ", "North ", "South ", "New ", "the Kingdom of ", "the United States of ")) + name
    question = capitalised(ASK.pick(rng, split).format(c=name))
    if rng.random() < 0.3:
        return [user(f"Question: {question}"), assistant("Answer: ", said(UNKNOWN_COUNTRY))]
    return [user(casually(rng, question)), assistant(said(UNKNOWN_COUNTRY))]


def reverse(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """The country of a capital."""
    country = rng.choice(countries())
    question = REVERSE.pick(rng, split).format(k=country.capital)
    return [user(casually(rng, question)), assistant(said(f"{country.capital} is the capital of {country.name}."))]


def is_it(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """Whether a city is the capital of a country; the answer names the right one."""
    country = rng.choice(countries())
    right = rng.random() < 0.5
    other = country if right else rng.choice([c for c in countries() if c.capital != country.capital])
    question = IS_IT.pick(rng, split).format(k=other.capital, c=country.name)
    answer = f"Yes, {country.capital} is the capital of {country.name}." if right else f"No. {sentence(country)}"
    return [user(question), assistant(said(answer))]


def continent(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """The continent of a country."""
    country = rng.choice(countries())
    question = CONTINENT.pick(rng, split).format(c=country.name)
    return [user(casually(rng, question)), assistant(said(f"{capitalised(country.name)} is in {country.continent}."))]
