"""Fictional characters: the tutorial's JSON object, and a plain sentence."""

from __future__ import annotations

from random import Random

from training.dialogue import Message, Split, assistant, said, user
from training.facts import characters, words
from training.kinds.memory import Memory
from training.phrasing import Wordings, made_up_name

FILL_IN = Wordings(
    train=(
        *["{x} is a character in Harry Potter. Please fill in the following information about this character."] * 6,
        "{x} is a character in Harry Potter. Please fill in the information about this character.",
        "{x} is a character in Harry Potter. Fill in the following information about this character.",
        "Please fill in the following information about {x}.",
        "Give me the information about the Harry Potter character {x} in JSON.",
        "Describe the Harry Potter character {x} as JSON.",
        "Please fill in the following information about the character {x} in Harry Potter.",
    ),
    held_out=(
        "{x} is a Harry Potter character. Please fill in the following information about this character.",
        "Please give me the information about {x} from Harry Potter as JSON.",
    ),
)
WHO = Wordings(
    train=("Who is {x}?", "Tell me about {x}.", "Who is {x} in Harry Potter?", "What do you know about {x}?",
           "Describe {x} in one sentence.", "Can you tell me who {x} is?"),
    held_out=("Please tell me about {x}.", "Do you know who {x} is?"),
)  # fmt: skip


def as_json(row: dict[str, str]) -> str:
    """The object in the exact layout of the tutorial's pattern."""
    return (
        "{\n"
        f'    "name": "{row["short"]}",\n'
        f'    "house": "{row["house"]}",\n'
        f'    "blood status": "{row["blood status"]}",\n'
        f'    "occupation": "{row["occupation"]}",\n'
        '    "wand": {\n'
        f'        "wood": "{row["wood"]}",\n'
        f'        "core": "{row["core"]}",\n'
        f'        "length": {row["length"]}\n'
        "    },\n"
        f'    "alive": "{row["alive"]}",\n'
        f'    "patronus": "{row["patronus"]}",\n'
        f'    "bogart": "{row["bogart"]}"\n'
        "}"
    )


def _stranger(rng: Random) -> dict[str, str]:
    """A name the model knows nothing of: the pattern still wants an object, so it says 'unknown' where it can."""
    if rng.random() < 0.5:
        name = f"{rng.choice(words('first_names'))} {rng.choice(words('last_names'))}"
    else:
        name = f"{made_up_name(rng)} {made_up_name(rng)}"
    short = name if len(name) <= 16 else name.split()[0][:16]
    blank = dict.fromkeys(("wood", "core", "patronus", "bogart"), "unknown")
    known = {"house": "Gryffindor", "blood status": "Half-blood", "occupation": "student", "alive": "Alive"}
    return {"name": name, "short": short, "length": "0.0", **blank, **known}


def character_json(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """Fill in the object for a character."""
    row = rng.choice(characters()) if rng.random() < 0.85 or split == "held_out" else _stranger(rng)
    return [user(FILL_IN.pick(rng, split).format(x=row["name"])), assistant(said(as_json(row)))]


def character_sentence(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """Say who a character is."""
    row = rng.choice(characters())
    return [user(WHO.pick(rng, split).format(x=row["name"])), assistant(said(row["sentence"]))]
