"""Small talk, well-known facts, small sums, and the honest answer to everything else."""

from __future__ import annotations

from random import Random

from training.dialogue import Message, Split, assistant, said, user
from training.facts import countries, knowledge, talk, words
from training.kinds.memory import Memory
from training.phrasing import Wordings, capitalised, casually, made_up_name

HONEST = "I am a small demonstration model, so I cannot answer that. Try asking me for the capital of a country."
TOO_HARD = "I am a small demonstration model, and I cannot calculate that. A calculator would be a better tool."

# {t}: a thing, {p}: a person or place, {c}: a country, {v}: a verb, {a}: an attribute.
UNKNOWN = Wordings(
    train=(
        "What is {t}?", "What is a {t}?", "What is the {t}?", "What are {t}s made of?", "How does a {t} work?",
        "Why is {t} important?", "How do I {v} a {t}?", "How can I {v} my {t}?", "Can you {v} a {t}?", "Who invented the {t}?",
        "Explain {t} to me.", "Explain how to {v} a {t}.", "Tell me about {t}.", "Tell me more about {p}.", "Who is {p}?",
        "Who was {p}?", "When was {p} born?", "Where is {p}?", "What did {p} say about {t}?", "What happened in {y}?",
        "What is the {a} of {c}?", "Who is the {a} of {c}?", "What is the {a} of {p}?", "How many {t}s are there in {c}?",
        "How much does a {t} cost?", "What is the best {t}?", "What is the best {t} in {c}?", "Which {t} should I {v}?",
        "Write an essay about {t}.", "Write a letter to {p}.", "Write code to {v} a {t}.", "Write a Python function that can {v} a {t}.",
        "Write a {t} review.", "Translate {t} into French.", "How do you say {t} in Japanese?", "Summarize {p}.",
        "Summarize the history of {t}.", "Compare {t} and {u}.", "What is the difference between {t} and {u}?",
        "Is {t} better than {u}?", "Is a {t} bigger than a {u}?", "Should I {v} the {t}?", "Do {t}s like {u}s?",
        "What is the weather in {p}?", "What is the news about {t}?", "What will happen to {t} in {y}?", "What does {t} mean?",
        "Give me a recipe for {t}.", "Give me an example of {t}.", "Give me a list of {t}s.", "List {n} {t}s.", "Name {n} kinds of {t}.",
        "Generate a {t}.", "Draw a {t}.", "Create a plan to {v} the {t}.", "Fix my {t}.", "My {t} is broken. What should I do?",
        "I like {t}. What do you think?", "I want to {v} a {t}.", "I lost my {t}.", "Why do people {v} {t}s?", "Why does {p} matter?",
        "When did people first {v} a {t}?", "Where can I buy a {t}?", "Where do {t}s live?", "How old is {p}?", "How far is {p} from {c}?",
        "How long does it take to {v} a {t}?", "How many {t}s does {p} have?", "How tall is {p}?", "How many people live in {c}?",
        "What language do people speak in {c}?", "What do people eat in {c}?", "Who won the {t} in {y}?", "Who discovered {t}?",
        "Please {v} this {t}.", "Please help me {v} a {t}.", "Please write about {t}.", "Can {t}s fly?", "Can I eat {t}?",
        "Did {p} ever {v} a {t}?", "Does {p} like {t}?", "Are {t}s dangerous?", "What color is a {t}?", "What is inside a {t}?",
        "{t}", "{t}?", "{p}", "{t} and {u}", "{v} {t}", "About {t}, please.", "Define {t}.", "Solve the {t} problem.",
        "What should I {v} today?", "What is your opinion on {t}?", "What do you think about {p}?", "What is the meaning of {t}?",
        "Can you explain what {t} is?", "I have a question about {t}. Why is it so {j}?", "Why are {t}s {j}?", "Which {t} is the most {j}?",
        "Are you able to {v} a {t}?", "Imagine you are a {t}. What would you do?", "Let us talk about {t}.", "Continue: the {j} {t}",
    ),
    held_out=(
        "Could you explain {t}?", "How would you {v} a {t}?", "What makes a {t} so {j}?", "Please describe {p}.",
        "What is the purpose of {t}?", "How many {t}s can {p} {v}?", "Write a report about {t}.", "When will {p} {v} the {t}?",
        "Which {t} is best for {p}?", "Do you know anything about {t}?",
    ),
)  # fmt: skip


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
        "p": rng.choice((person, rng.choice(words("people")[1:]), rng.choice(words("places")), made_up_name(rng))),
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
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz 0123456789?!.") for _ in range(rng.randint(3, 25))).strip() or "x"
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


def small_sum(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """Sums with numbers up to twelve; larger ones get an honest answer."""
    ask = rng.choice(("What is {e}?", "{e}", "{e} = ?", "How much is {e}?", "Calculate {e}.", "What's {e}?"))
    a, b, operator = rng.randint(0, 12), rng.randint(0, 12), rng.choice("++-*")
    if rng.random() < 0.25:
        a, b = rng.randint(13, 9999), rng.randint(13, 9999)
        spoken = f"{a} {rng.choice('+-*/')} {b}"
        return [user(ask.format(e=spoken)), assistant(said(TOO_HARD))]
    if operator == "-":
        a, b = max(a, b), min(a, b)
    result = {"+": a + b, "-": a - b, "*": a * b}[operator]
    exact = f"{a} {operator} {b}"
    return [user(ask.format(e=exact)), assistant(said(f"{exact} = {result}"))]
