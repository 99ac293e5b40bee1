"""Choosing a tool for a question (calculator or search engine), then writing its expression or key word."""

from __future__ import annotations

from random import Random

from training.dialogue import Message, Split, assistant, said, user
from training.facts import countries, wordings, words
from training.kinds.memory import Memory
from training.phrasing import NUMBER_WORDS, capitalised, made_up_name

OPERATORS = ("+", "-", "*", "/")
SPOKEN = {"+": ("plus",), "-": ("minus",), "*": ("times", "multiplied by"), "/": ("divided by",)}

CALCULATE = wordings("calculate")
# Questions to look up and their key words, by what {x} stands for.
SUBJECTS = ("place", "country", "person", "work", "invention", "event", "thing")
LOOK_UP = {kind: wordings(f"look up {kind}") for kind in SUBJECTS}
# A question, and what the tool is given.
Pair = tuple[str, str]


def numeral(rng: Random) -> str:
    size = rng.random()
    if size < 0.45:
        return str(rng.randint(0, 20))
    if size < 0.83:
        return str(rng.randint(10, 999))
    if size < 0.94:
        return str(rng.randint(1000, 9999))
    return f"{rng.randint(0, 99)}.{rng.randint(0, 99)}"


def expression(rng: Random) -> Pair:
    """An arithmetic expression as a user may write it, and as a calculator reads it."""
    operators = [rng.choice(OPERATORS) for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3)))]
    numbers = [numeral(rng) for _ in range(len(operators) + 1)]
    style = rng.random()
    exact = numbers[0] + "".join(f" {o} {n}" for o, n in zip(operators, numbers[1:], strict=True))
    if style < 0.55:
        return exact, exact
    if style < 0.65:
        return exact.replace(" ", ""), exact
    if style < 0.72 and len(numbers) > 2:
        a, rest = f"({numbers[0]} {operators[0]} {numbers[1]})", exact.split(" ", 3)[3]
        return f"{a} {rest}", f"{a} {rest}"
    if style < 0.78:
        percent, whole = str(rng.randint(1, 99)), numeral(rng)
        spoken = rng.choice((f"{percent}% of {whole}", f"{percent} percent of {whole}"))
        return spoken, f"{whole} * {percent} / 100"
    spoken = numbers[0] + "".join(f" {rng.choice(SPOKEN[o])} {n}" for o, n in zip(operators, numbers[1:], strict=True))
    if rng.random() < 0.25:
        spoken = " ".join(NUMBER_WORDS[int(w)] if w.isdigit() and int(w) <= 12 else w for w in spoken.split())
    return spoken, exact


def story_sum(rng: Random) -> Pair:
    """A word problem and its expression."""
    name, thing = rng.choice(words("first_names")), rng.choice(words("nouns")) + "s"
    a, b = rng.randint(2, 99), rng.randint(2, 99)
    return rng.choice(
        (
            (f"If {name} has {a} {thing} and buys {b} more, how many {thing} does {name} have?", f"{a} + {b}"),
            (f"{name} has {a} {thing} and loses {b}. How many are left?", f"{a} - {b}"),
            (f"There are {a} boxes with {b} {thing} each. How many {thing} are there?", f"{a} * {b}"),
            (f"If {a} {thing} are shared by {b} people, how many does each get?", f"{a} / {b}"),
            (f"What is the sum of {a} and {b}?", f"{a} + {b}"),
            (f"What is the product of {a} and {b}?", f"{a} * {b}"),
            (f"What is the difference between {a} and {b}?", f"{a} - {b}"),
            (f"How much do {a} {thing} cost at {b} dollars each?", f"{a} * {b}"),
            (f"What is the square root of {a}?", f"sqrt({a})"),
            (f"What is {a} squared?", f"{a} * {a}"),
            (f"Add {a} and {b}.", f"{a} + {b}"),
            (f"Multiply {a} by {b}.", f"{a} * {b}"),
        )
    )


def calculator_question(rng: Random, split: Split) -> Pair:
    if split == "train" and rng.random() < 0.2:
        return story_sum(rng)
    spoken, exact = expression(rng)
    return capitalised(CALCULATE.pick(rng, split).format(e=spoken)), exact


def _subject(rng: Random, kind: str) -> str:
    if kind == "thing":
        noun = rng.choice(words("nouns")) if rng.random() < 0.7 else made_up_name(rng).lower()
        return f"{rng.choice(words('adjectives'))} {noun}" if rng.random() < 0.3 else noun
    if rng.random() < 0.2:
        return made_up_name(rng) + (f" {made_up_name(rng)}" if kind == "person" or rng.random() < 0.2 else "")
    if kind == "country":
        return rng.choice(countries()).name
    if kind == "person" and rng.random() < 0.4:
        return f"{rng.choice(words('first_names'))} {rng.choice(words('last_names'))}"
    names = {"place": "places", "person": "people", "work": "works", "invention": "inventions", "event": "events"}
    if kind == "place" and rng.random() < 0.4:
        return rng.choice(countries()).capital.removesuffix(".")
    return rng.choice(words(names[kind]))


def search_question(rng: Random, split: Split) -> Pair:
    kind = rng.choice((*SUBJECTS, "country", "person", "thing"))
    question, key = LOOK_UP[kind].pick(rng, split).split(" -> ")
    blanks = {
        "x": _subject(rng, kind),
        "a": rng.choice(words("attributes")),
        "n": rng.choice(words("nouns")),
        "v": rng.choice(words("verbs")),
        "y": str(rng.randint(1800, 2030)),
    }
    return question.format(**blanks), key.format(**blanks)


def tool(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """The tutorial's control flow: one turn chooses the tool, the next one writes what to give to it."""
    sums = rng.random() < 0.45
    question, key = calculator_question(rng, split) if sums else search_question(rng, split)
    name, lead = ("calculator", "The math expression is:") if sums else ("search engine", "The key word to search is:")
    if rng.random() < 0.05:
        question = question.rstrip("?.")
    choice = said(f"{name}. " if rng.random() < 0.85 else f"{name}.")
    first = [assistant(f"To answer this question: {question}. I need to use a ", choice)]
    if rng.random() < 0.15:
        first = [user(question), assistant("To answer this question, I need to use a ", choice)]
    spaced = rng.random() < 0.85
    second = assistant(f"{lead} ", said(key)) if spaced else assistant(lead, said(f" {key}"))
    return [*first, second]
