"""Choosing a tool for a question (calculator or search engine), then writing its expression or key word."""

from __future__ import annotations

from random import Random

from training.dialogue import Message, Split, assistant, said, user
from training.facts import countries, words
from training.kinds.memory import Memory
from training.phrasing import NUMBER_WORDS, Wordings, capitalised, made_up_name

OPERATORS = ("+", "-", "*", "/")
SPOKEN = {"+": ("plus",), "-": ("minus",), "*": ("times", "multiplied by"), "/": ("divided by",)}

CALCULATE = Wordings(
    train=(*["What is {e}?"] * 5, "Calculate {e}.", "Compute {e}", "What's {e}?", "How much is {e}?", "{e}", "{e} = ?",
           "What is the result of {e}?", "Please calculate {e}.", "Can you compute {e}?", "Solve {e}.", "Evaluate {e}",
           "What does {e} equal?", "Tell me what {e} is."),
    held_out=("Please compute {e}.", "What is the value of {e}?", "Can you calculate {e}?", "How much does {e} make?"),
)  # fmt: skip
# (question, key words); {x} is what is copied.
Pair = tuple[str, str]
LOOK_UP: dict[str, tuple[tuple[Pair, ...], tuple[Pair, ...]]] = {
    "place": (
        (("What is the weather in {x}?", "weather in {x}"), ("What is the weather like in {x} today?", "weather in {x} today"),
         ("Where is {x}?", "{x}"), ("How old is {x}?", "age of {x}"), ("How far is {x}?", "distance to {x}"),
         ("What time is it in {x}?", "time in {x}"), ("Who lives in {x}?", "people of {x}"), ("Tell me about {x}.", "{x}"),
         ("How do I get to {x}?", "way to {x}"), ("What is the best restaurant in {x}?", "best restaurant in {x}"),
         ("What is the temperature in {x}?", "temperature in {x}"), ("What is {x} known for?", "{x}")),
        (("How is the weather in {x}?", "weather in {x}"), ("Where can I find {x}?", "{x}")),
    ),
    "country": (
        (("What is the capital of {x}?", "capital of {x}"), ("Who is the president of {x}?", "president of {x}"),
         ("What is the {a} of {x}?", "{a} of {x}"), ("Who is the {a} of {x}?", "{a} of {x}"),
         ("How big is {x}?", "size of {x}"), ("How many people live in {x}?", "population of {x}"),
         ("What language do they speak in {x}?", "language of {x}"), ("What is the {a} in {x}?", "{a} in {x}")),
        (("Tell me the {a} of {x}.", "{a} of {x}"), ("What's the capital of {x}?", "capital of {x}")),
    ),
    "person": (
        (("Who is {x}?", "{x}"), ("Who was {x}?", "{x}"), ("When was {x} born?", "birth date of {x}"),
         ("Where was {x} born?", "birth place of {x}"), ("How old is {x}?", "age of {x}"),
         ("When did {x} die?", "death date of {x}"), ("Tell me about {x}.", "{x}"), ("What did {x} do?", "{x}"),
         ("Where does {x} live?", "home of {x}"), ("Why is {x} famous?", "{x}"), ("Who is {x} married to?", "wife of {x}")),
        (("Can you tell me who {x} is?", "{x}"), ("What is {x} famous for?", "{x}")),
    ),
    "work": (
        (("Who wrote {x}?", "author of {x}"), ("Who is the author of {x}?", "author of {x}"),
         ("Who made {x}?", "maker of {x}"), ("Who directed {x}?", "director of {x}"), ("What is {x} about?", "{x}")),
        (("Which author wrote {x}?", "author of {x}"),),
    ),
    "invention": (
        (("Who invented {x}?", "inventor of {x}"), ("When was {x} invented?", "invention of {x}"),
         ("How does {x} work?", "how {x} works"), ("What is {x}?", "{x}")),
        (("Who is the inventor of {x}?", "inventor of {x}"),),
    ),
    "event": (
        (("When was {x}?", "date of {x}"), ("When did {x} happen?", "date of {x}"), ("What caused {x}?", "causes of {x}"),
         ("Who won {x}?", "winner of {x}"), ("When is {x}?", "date of {x}"), ("What was {x}?", "{x}")),
        (("What year was {x}?", "date of {x}"),),
    ),
    "thing": (
        (("What is a {x}?", "{x}"), ("What is the {x}?", "{x}"), ("What is {x}?", "{x}"), ("What are {x}s?", "{x}s"),
         ("How do {x}s work?", "how {x}s work"), ("What is the history of {x}?", "history of {x}"),
         ("What is the price of a {x}?", "price of a {x}"), ("How do I {v} a {x}?", "how to {v} a {x}"),
         ("Where can I buy a {x}?", "buy a {x}"), ("What does {x} mean?", "meaning of {x}"),
         ("What is the latest news about {x}?", "news about {x}"), ("Tell me about {x}.", "{x}")),
        (("How can I {v} a {x}?", "how to {v} a {x}"), ("Explain {x}.", "{x}")),
    ),
}  # fmt: skip


def numeral(rng: Random) -> str:
    size = rng.random()
    if size < 0.45:
        return str(rng.randint(0, 20))
    if size < 0.75:
        return str(rng.randint(10, 999))
    if size < 0.9:
        return str(rng.randint(1000, 99999))
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
    spoken = numbers[0] + "".join(
        f" {rng.choice(SPOKEN[o])} {n}" for o, n in zip(operators, numbers[1:], strict=True)
    )
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
    if rng.random() < 0.3:
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
    kind = rng.choice(("place", "country", "country", "person", "person", "work", "invention", "event", "thing", "thing"))
    question, key = rng.choice(LOOK_UP[kind][0 if split == "train" else 1])
    blanks = {"x": _subject(rng, kind), "a": rng.choice(words("attributes")), "v": rng.choice(words("verbs"))}
    return question.format(**blanks), key.format(**blanks)


def tool(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """The tutorial's control flow: one turn chooses the tool, the next one writes what to give to it."""
    sums = rng.random() < 0.45
    question, key = calculator_question(rng, split) if sums else search_question(rng, split)
    name, lead = ("calculator", "The math expression is:") if sums else ("search engine", "The key word to search is:")
    if rng.random() < 0.05:
        question = question.rstrip("?.")
    choice = (said(name), ". ") if rng.random() < 0.85 else (said(name), ".")
    first = [assistant(f"To answer this question: {question}. I need to use a ", *choice)]
    if rng.random() < 0.15:
        first = [user(question), assistant("To answer this question, I need to use a ", *choice)]
    spaced = rng.random() < 0.85
    second = assistant(f"{lead} ", said(key)) if spaced else assistant(lead, said(f" {key}"))
    return [*first, second]
