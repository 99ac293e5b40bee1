"""Fictional characters: the tutorial's JSON object, and a plain sentence."""

from __future__ import annotations

from random import Random

from training.dialogue import Message, Split, assistant, said, user
from training.facts import characters, wordings, words
from training.kinds.memory import Memory
from training.phrasing import made_up_name

FILL_IN = wordings("fill in")
WHO = wordings("who is")


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
    row = rng.choice(characters()) if rng.random() < 0.93 or split == "held_out" else _stranger(rng)
    return [user(FILL_IN.pick(rng, split).format(x=row["name"])), assistant(said(as_json(row)))]


def character_sentence(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """Say who a character is."""
    row = rng.choice(characters())
    return [user(WHO.pick(rng, split).format(x=row["name"])), assistant(said(row["sentence"]))]
