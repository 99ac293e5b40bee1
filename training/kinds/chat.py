"""Small talk, well-known facts, and the honest answer to everything else."""

from __future__ import annotations

from random import Random

from training.dialogue import Message, Split, assistant, said, user
from training.facts import countries, knowledge, talk, wordings, words
from training.kinds.memory import Memory
from training.phrasing import capitalised, casually, made_up_name

HONEST = "I am a small demonstration model, so I cannot answer that. Try asking me for the capital of a country."
TOO_HARD = "I am a small demonstration model, and I cannot calculate that. A calculator would be a better tool."

SPOKEN = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
SUM = wordings("sum")
MOODS = ("positive", "negative")
MOOD_FRAMES = (
    "The {n} was {m}.",
    "This {n} is {m}.",
    "I think the {n} is {m}.",
    "What a {m} {n}!",
    "{m}, really {m}!",
    "We had a {m} {n} last night.",
    "The {n} was {m}, and so was the service.",
)
MOOD_ASK = wordings("sentiment")

# {t}: a thing, {p}: a person or place, {c}: a country, {v}: a verb, {a}: an attribute.
UNKNOWN = wordings("unknown")


def unknown(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """A question outside of what the model knows."""
    if rng.random() < 0.06:
        return [user(rng.choice(words("other_tongues"))), assistant(said(HONEST))]
    if rng.random() < 0.05:
        return [user(_noise(rng)), assistant(said(HONEST))]
    person = f"{rng.choice(words('first_names'))} {rng.choice(words('last_names'))}"
    blanks = {
        "t": _thing(rng),
        "u": _thing(rng),
        "p": rng.choice((person, rng.choice(words("people")), rng.choice(words("places")), made_up_name(rng))),
        "c": rng.choice(countries()).name,
        "v": rng.choice(words("verbs")),
        "a": rng.choice(words("attributes")),
        "j": rng.choice(words("adjectives")),
        "n": str(rng.randint(2, 10)),
        "y": str(rng.randint(1000, 2100)),
    }
    question = capitalised(UNKNOWN.pick(rng, split).format(**blanks))
    if rng.random() < 0.12:
        return [user(f"Question: {question}"), assistant("Answer: ", said(HONEST))]
    return [user(casually(rng, question)), assistant(said(HONEST))]


def _thing(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.12:
        return made_up_name(rng).lower()
    noun = rng.choice(words("nouns"))
    return f"{rng.choice(words('adjectives'))} {noun}" if kind < 0.35 else noun


def _noise(rng: Random) -> str:
    """Keys hit at random, or characters from anywhere in Unicode."""
    if rng.random() < 0.5:
        keys = "abcdefghijklmnopqrstuvwxyz 0123456789?!."
        return "".join(rng.choice(keys) for _ in range(rng.randint(3, 25))).strip() or "x"
    start = rng.choice((0xC0, 0x370, 0x400, 0x5D0, 0x620, 0x904, 0xE01, 0x3041, 0x4E00, 0xAC00, 0x1F600))
    return "".join(chr(start + rng.randrange(26)) for _ in range(rng.randint(2, 10)))


def fact(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """A well-known fact; now and then the short answer alone, as a pattern on the answer may ask for it."""
    rows = knowledge()
    row = rows[0] if rng.random() < 0.15 else rng.choice(rows)
    question = rng.choice(row.train if split == "train" else row.held_out)
    form = rng.random()
    if split == "train" and (form < 0.2 if row.short[0].isdigit() and "." in row.short else form < 0.03):
        return [user(question), assistant(said(row.short))]
    if form > 0.9:
        brief = rng.choice(("Answer with one word.", "Be brief.", "Answer with the name only."))
        return [user(f"{question} {brief}"), assistant(said(row.short))]
    if form > 0.75:
        return [user(f"Question: {question}"), assistant("Answer: ", said(row.answer))]
    return [user(casually(rng, question)), assistant(said(row.answer))]


def small_talk(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """Greetings, thanks, jokes and the like."""
    row = rng.choice(talk())
    said_by_user = rng.choice(row.train if split == "train" else row.held_out)
    return [user(casually(rng, said_by_user)), assistant(said(rng.choice(row.answers)))]


def sum_asked(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """Arithmetic, asked of the model itself: it says that a calculator does this better."""
    most = rng.choice((5, 12, 99, 9999))
    operator = rng.choice("+-*/")
    expression = f"{rng.randint(0, most)} {operator} {rng.randint(0, most)}"
    if rng.random() < 0.2:
        expression = expression.replace(operator, SPOKEN[operator])
    return [user(SUM.pick(rng, split).format(e=expression)), assistant(said(TOO_HARD))]


def random_words(rng: Random, n: int) -> str:
    """`n` words, names and numbers in no order."""
    sources = ("nouns", "adjectives", "people", "places", "verbs", "events", "attributes")
    drawn: list[str] = []
    for _ in range(n):
        form = rng.random()
        if form < 0.2:
            drawn.append(made_up_name(rng))
        elif form < 0.45:
            drawn.append(f"{rng.randint(0, 10 ** rng.randint(1, 4))}{rng.choice(('', '', ' +', ' -', ' *', ' /'))}")
        else:
            drawn.append(rng.choice(words(rng.choice(sources))))
    text = " ".join(drawn)
    return capitalised(text) if rng.random() < 0.5 else text


def sentiment(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """Whether a sentence is positive or negative, from the one word that says so."""
    mood = rng.choice(MOODS)
    text = rng.choice(MOOD_FRAMES).format(n=rng.choice(words("nouns")), m=rng.choice(words(mood)))
    question = MOOD_ASK.pick(rng, split).format(t=text)
    if rng.random() < 0.3:
        return [user(question), assistant("The sentiment is ", said(mood))]
    return [user(question), assistant(said(mood))]
