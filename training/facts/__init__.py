"""The facts that the generated dialogues are made of, read from the tables in this folder."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from training.dialogue import Split

FOLDER = Path(__file__).parent

# The order in which lists name countries: each list goes on where the one before it ended, so no country comes twice.
_ORDER = (
    "France,Germany,Japan,Italy,Canada,Australia,Spain,Brazil,India,Egypt,Mexico,China,Kenya,Norway,Greece,Argentina,"
    "South Korea,Portugal,Nigeria,Sweden,Thailand,Peru,Poland,Morocco,Cuba,Turkey,Austria,Chile,New Zealand,Vietnam,"
    "Ireland,Ghana,Denmark,Indonesia,Colombia,Finland,Ethiopia,Belgium,Jamaica,Switzerland,Iran,Senegal,Hungary,"
    "Ecuador,Fiji,Russia,Tunisia,Ukraine"
)


@dataclass(frozen=True)
class Country:
    """A country; `name` carries its article ("the Netherlands")."""

    name: str
    capital: str
    continent: str
    aliases: tuple[str, ...] = ()

    @property
    def bare(self) -> str:
        return self.name.removeprefix("the ")


@dataclass(frozen=True)
class Wordings:
    """The ways to say one thing: those trained on, and those kept out for the evaluation."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def pick(self, rng: Random, split: Split) -> str:
        """A wording of the split; in training the first one comes more often than the others."""
        if split == "held_out":
            return rng.choice(self.held_out)
        return self.train[0] if rng.random() < 0.15 else rng.choice(self.train)


@dataclass(frozen=True)
class Fact:
    """A question in several wordings with its answer as a sentence and as a word."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: str
    short: str


@dataclass(frozen=True)
class Talk:
    """Small talk: what may be said, and the answers."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Topic:
    """A topic of advice: its name, the goal as a verb, and tips as (title, paragraph, summary)."""

    name: str
    goal: str
    tips: tuple[tuple[str, str, str], ...]


def _load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@cache
def countries() -> tuple[Country, ...]:
    with (FOLDER / "countries.csv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter=";")
        return tuple(
            Country(r["name"], r["capital"], r["continent"], tuple(filter(None, r["aliases"].split("|")))) for r in rows
        )


@cache
def chain() -> tuple[Country, ...]:
    by_name = {country.bare: country for country in countries()}
    return tuple(by_name[name] for name in _ORDER.split(","))


@cache
def characters() -> tuple[dict[str, str], ...]:
    table = _load("characters.json")
    return tuple(dict(zip(table["columns"], row, strict=True)) for row in table["rows"])


@cache
def topics() -> tuple[Topic, ...]:
    table: dict[str, Any] = _load("tips.json")
    return tuple(Topic(name, t["goal"], tuple((a, b, c) for a, b, c in t["tips"])) for name, t in table.items())


@cache
def knowledge() -> tuple[Fact, ...]:
    return tuple(Fact(tuple(q), tuple(h), answer, short) for q, h, answer, short in _load("knowledge.json")["rows"])


@cache
def talk() -> tuple[Talk, ...]:
    return tuple(Talk(tuple(q), tuple(h), tuple(a)) for q, h, a in _load("talk.json")["rows"])


def wordings(name: str) -> Wordings:
    """The wordings called `name` in wordings.json."""
    row = _wordings()[name]
    return Wordings(tuple(row["train"]), tuple(row["held out"]))


@cache
def _wordings() -> dict[str, Any]:
    return _load("wordings.json")


@cache
def words(kind: str) -> tuple[str, ...]:
    """A word list by name: single words are parted by spaces, names by semicolons."""
    return _split(_load("words.json")[kind])


@cache
def series() -> dict[str, tuple[str, ...]]:
    """Things of one kind, in the order in which a list names them."""
    table: dict[str, str] = _load("series.json")
    return {name: _split(text) for name, text in table.items()}


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(";") if ";" in text else text.split())
