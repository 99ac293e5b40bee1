"""Lists of countries and their capitals; a second list goes on where the first one ended, so nothing comes twice."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from training.dialogue import Message, Split, assistant, said, user
from training.facts import Country, chain, series, wordings
from training.kinds.memory import Memory
from training.phrasing import NUMBER_WORDS, casually, number

CONTINENTS = ("Europe", "Asia", "Africa", "North America", "South America", "Oceania")

FIRST = wordings("countries")
MORE = wordings("more countries")
AGAIN = wordings("another list")


def following(after: str | None, where: str | None, taken: list[str]) -> Iterator[Country]:
    """Countries in the chain's order behind `after`, on the continent `where`, none of those `taken`."""
    ring = list(chain())
    start = next((i + 1 for i, c in enumerate(ring) if c.name == after), 0)
    for country in ring[start:] + ring[:start]:
        if country.name not in taken and where in (None, country.continent):
            yield country


def listing(rng: Random, n: int, where: str | None, memory: Memory, more: bool) -> str:
    """The answer: a line that says what follows, and the numbered list."""
    after = memory.listed[-1] if memory.listed else None
    if after is None and where is None and rng.random() < 0.4:
        after = rng.choice(("Australia", "Egypt", "Norway", "Argentina", "Portugal", "Cuba"))
    source = following(after, where, memory.listed)
    chosen = [country for country, _ in zip(source, range(n), strict=False)]
    memory.listed += [country.name for country in chosen]
    n = len(chosen)
    noun = ("country" if n == 1 else "countries") + (f" in {where}" if where else "")
    verb, owner = ("is", "its capital") if n == 1 else ("are", "their capitals")
    head = f"Here {verb} {NUMBER_WORDS[n]} {'more ' if more else ''}{noun} and {owner}:"
    return "\n".join([f"{head}\n", *(f"{i}. {c.bare} - {c.capital}" for i, c in enumerate(chosen, 1))])


def country_lists(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """One to three lists in one dialogue."""
    messages: list[Message] = []
    n = rng.choice((3, 3, 3, 2, 4, 5, 5, 1, 6, 7, 8, 10))
    where = rng.choice(CONTINENTS) if rng.random() < 0.2 else None
    more = bool(memory.listed)
    for _ in range(rng.choice((1, 2, 2, 2, 3))):
        most = sum(c.continent == where and c.name not in memory.listed for c in chain()) if where else 10
        n = min(n, most)
        if n == 0:
            break
        wordings = AGAIN if more and rng.random() < 0.15 else MORE if more else FIRST
        request = wordings.pick(rng, split).format(n=number(rng, n), where=f" in {where}" if where else "")
        if n == 1:
            request = request.replace("countries", "country").replace("their capitals", "its capital")
        messages += [user(casually(rng, request)), assistant(said(listing(rng, n, where, memory, more)))]
        more = True
        n = n if rng.random() < 0.75 else rng.choice((2, 3, 4, 5))
    return messages


THINGS = wordings("things")
MORE_THINGS = wordings("more things")


def thing_lists(rng: Random, split: Split, memory: Memory) -> list[Message]:
    """Lists of fruits, colors, planets, countries without capitals and the like."""
    name = rng.choice((*series(), "countries", "countries"))
    things = [country.bare for country in chain()] if name == "countries" else list(series()[name])
    n = rng.choice((2, 3, 3, 4, 5))
    first, second = things[:n], things[n : 2 * n]
    body = "\n".join(f"{i}. {thing}" for i, thing in enumerate(first, 1))
    messages = [
        user(casually(rng, THINGS.pick(rng, split).format(n=number(rng, n), t=name))),
        assistant(said(f"Here are {NUMBER_WORDS[n]} {name}:\n\n{body}")),
    ]
    if len(second) == n and rng.random() < 0.5:
        body = "\n".join(f"{i}. {thing}" for i, thing in enumerate(second, 1))
        messages += [
            user(casually(rng, MORE_THINGS.pick(rng, split).format(n=number(rng, n), t=name))),
            assistant(said(f"Here are {NUMBER_WORDS[n]} more {name}:\n\n{body}")),
        ]
    return messages
