"""Questions about one country: its capital in many wordings, the way back, yes or no, the continent."""

from __future__ import annotations

from random import Random

from training.dialogue import Message, Split, assistant, said, user
from training.facts import Country, countries, wordings, words
from training.kinds.memory import Memory
from training.phrasing import capitalised, casually, made_up_name

UNKNOWN_COUNTRY = "I am a small demonstration model, and I do not know a country of that name."
PREFIXES = ("the Republic of ", "North ", "South ", "New ", "the Kingdom of ", "the United States of ")

ASK = wordings("capital")
BRIEFLY = wordings("briefly")
REVERSE = wordings("country of a capital")
IS_IT = wordings("is it the capital")
CONTINENT = wordings("continent")
ABOUT = wordings("about a country")
FOLLOW = wordings("and another")


def full_stop(text: str) -> str:
    """The text with one full stop at its end, also behind "D.C."."""
    return text.removesuffix(".") + "."


def sentence(country: Country) -> str:
    return full_stop(f"The capital of {country.name} is {country.capital}")


def spoken_name(rng: Random, country: Country) -> str:
    return rng.choice(country.aliases) if country.aliases and rng.random() < 0.35 else country.name


def capital(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """A question for a capital; the answer in one line, in the frame the caller gives it."""
    country = rng.choice(countries())
    question = capitalised(ASK.pick(rng, split).format(c=spoken_name(rng, country)))
    form = rng.random()
    if form < 0.03 and split == "train":  # so that a pattern or choices for the bare name find it likely
        return [user(question), assistant(said(country.capital))]
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
    begun, city = f"The capital of {country.name} is", full_stop(country.capital)
    if form < 0.96:
        return [user(question), assistant(f"{begun} ", said(city))]
    return [user(question), assistant(begun, said(f" {city}"))]


def unknown_capital(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """A country that does not exist."""
    name = made_up_name(rng)
    if rng.random() < 0.2:
        name = rng.choice((*words("places"), *words("people"), *words("nouns")))
    if rng.random() < 0.2:
        name = rng.choice(PREFIXES) + name
    question = capitalised(ASK.pick(rng, split).format(c=name))
    if rng.random() < 0.3:
        return [user(f"Question: {question}"), assistant("Answer: ", said(UNKNOWN_COUNTRY))]
    return [user(casually(rng, question)), assistant(said(UNKNOWN_COUNTRY))]


def reverse(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """The country of a capital."""
    country = rng.choice(countries())
    question = REVERSE.pick(rng, split).format(k=country.capital)
    return [user(casually(rng, question)), assistant(said(sentence(country)))]


def is_it(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """Whether a city is the capital of a country; the answer says which one is, and leaves the comparing to the user."""
    country = rng.choice(countries())
    right = rng.random() < 0.5
    other = country if right else rng.choice([c for c in countries() if c.capital != country.capital])
    question = IS_IT.pick(rng, split).format(k=other.capital, c=country.name)
    return [user(question), assistant(said(sentence(country)))]


def continent(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """The continent of a country, alone or in a word about the country."""
    country = rng.choice(countries())
    if rng.random() < 0.4:
        question = ABOUT.pick(rng, split).format(c=country.name)
        answer = full_stop(f"It is a country in {country.continent}. Its capital is {country.capital}")
        return [user(casually(rng, question)), assistant(said(answer))]
    question = CONTINENT.pick(rng, split).format(c=country.name)
    return [user(casually(rng, question)), assistant(said(f"It is in {country.continent}."))]


def follow_up(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """A capital, then others in short questions that lean on the first; or two capitals at once."""
    chosen = rng.sample(countries(), 3)
    if rng.random() < 0.25:
        question = f"What are the capitals of {chosen[0].name} and {chosen[1].name}?"
        both = f"{sentence(chosen[0])[:-1]}, and t{sentence(chosen[1])[1:]}"
        return [user(question), assistant(said(both))]
    messages = [
        user(ASK.pick(rng, split).format(c=chosen[0].name)),
        assistant(said(sentence(chosen[0]))),
    ]
    for country in chosen[1 : rng.choice((2, 3))]:
        messages += [user(FOLLOW.pick(rng, split).format(c=country.name)), assistant(said(sentence(country)))]
    return messages
