"""Where a text stands in a regular expression, as a number: texts with the same number can go on in the same ways.

States are made one by one as texts are read, by partial derivatives of the expression (Antimirov, "Partial Derivatives of
Regular Expressions", 1996). Only ASCII is followed, on which all flavours of `\\w`, `\\d` and `\\s` agree, and only syntax that has
one meaning. Invariant: two texts with one number have the same continuations; the same continuations may have two numbers.
"""

from __future__ import annotations

import math
import string
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

MAX_LENGTH, MAX_STATES, MAX_WIDTH = 4000, 4000, 64
"""Characters of an expression, its states, and what may be expected in one of them; beyond, texts are not followed."""
ASCII = frozenset(map(chr, range(128)))
CLASSES = {
    "d": frozenset(string.digits),
    "w": frozenset(string.ascii_letters + string.digits + "_"),
    "s": frozenset("\t\n\v\f\r "),
}
CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
SYNTAX = frozenset("()[]{}|*+?.^$\\")


class Symbol(NamedTuple):
    """One character: of `ascii`, or whatever else `beyond` means, which is compared but never read."""

    ascii: frozenset[str]
    beyond: str = ""


class Then(NamedTuple):
    first: Term
    second: Term


class Either(NamedTuple):
    options: frozenset[Term]


class Repeat(NamedTuple):
    """`least` to `most` times; None is without end."""

    term: Term
    least: int
    most: int | None


class Nothing(NamedTuple):
    """The empty text."""


Term = Symbol | Then | Either | Repeat | Nothing
NOTHING, NEVER = Nothing(), Either(frozenset())


class UnknownSyntax(ValueError):
    """The expression has what this module does not read."""


class Automaton:
    """Raises `UnknownSyntax` for an expression that it cannot follow. A text begins in state 0. Any thread may ask."""

    def __init__(self, expression: str):
        if len(expression) > MAX_LENGTH:
            raise UnknownSyntax("it is too long")
        start = _Parser(expression).parse()
        self._terms: list[Term] = [start]
        self._numbers: dict[Term, int] = {start: 0}
        self._steps: dict[tuple[int, str], int | None] = {}
        self._lock = threading.Lock()

    def follow(self, state: int | None, text: str) -> int | None:
        """The state after `text`; None if that is not known."""
        for character in text:
            if state is None:
                return None
            step = (state, character)
            if step not in self._steps:
                with self._lock:
                    self._steps[step] = self._step(state, character)
            state = self._steps[step]
        return state

    def choices(self, seconds: float = math.inf) -> Iterator[tuple[int, str]]:
        """The states in which more than one text can follow, the nearest first, each with a text that leads to it: as far as
        they are found within `seconds`, those between two of them included."""
        end, found, queue = time.monotonic() + seconds, {0}, deque([(0, "")])
        while queue and time.monotonic() < end:
            state, text = queue.popleft()
            term = self._terms[state]
            leading = _leading(term)
            if len(frozenset[str]().union(*leading)) + _may_be_empty(term) > 1:
                yield state, text
            for character in _representatives(leading):
                after = self.follow(state, character)
                if after is not None and after not in found:
                    found.add(after)
                    queue.append((after, text + character))

    def _step(self, state: int, character: str) -> int | None:
        if len(self._terms) >= MAX_STATES or character not in ASCII:
            return None
        try:
            term = _derivative(self._terms[state], character)
            number = self._numbers.setdefault(term, len(self._terms))
        except RecursionError:
            return None
        if number == len(self._terms):
            self._terms.append(term)
        return number if 0 < len(_options(term)) <= MAX_WIDTH else None


# -- derivatives -------------------------------------------------------------------------------------------------------


def _derivative(term: Term, character: str) -> Term:
    """What may follow `character` where `term` is expected."""
    match term:
        case Symbol():
            return NOTHING if character in term.ascii else NEVER
        case Then(first, second):
            rest = _all_then(_derivative(first, character), second)
            return _either(rest, _derivative(second, character)) if _may_be_empty(first) else rest
        case Either(options):
            return _either(*(_derivative(option, character) for option in options))
        case Repeat(inner, least, most):
            again = _repeat(inner, max(0, least - 1), None if most is None else most - 1)
            return _all_then(_derivative(inner, character), again)
    return NEVER


def _may_be_empty(term: Term) -> bool:
    match term:
        case Then(first, second):
            return _may_be_empty(first) and _may_be_empty(second)
        case Either(options):
            return any(map(_may_be_empty, options))
        case Repeat(inner, least, _):
            return least == 0 or _may_be_empty(inner)
    return term == NOTHING


def _leading(term: Term) -> frozenset[frozenset[str]]:
    """The sets of characters one of which comes next, as far as they are ASCII."""
    match term:
        case Symbol():
            return frozenset([term.ascii])
        case Then(first, second):
            return _leading(first) | _leading(second) if _may_be_empty(first) else _leading(first)
        case Either(options):
            return frozenset[frozenset[str]]().union(*map(_leading, options))
        case Repeat(inner, _, _):
            return _leading(inner)
    return frozenset()


def _representatives(sets: frozenset[frozenset[str]]) -> list[str]:
    """One character for all that are in the same ones of the sets."""
    alike: dict[tuple[bool, ...], str] = {}
    for character in sorted(frozenset[str]().union(*sets)):
        alike.setdefault(tuple(character in one for one in sets), character)
    return list(alike.values())


def _then(first: Term, second: Term) -> Term:
    if isinstance(first, Then):
        return Then(first.first, _then(first.second, second))
    return second if first == NOTHING else first if second == NOTHING else Then(first, second)


def _all_then(firsts: Term, second: Term) -> Term:
    """`second` after each of several, apart, so that what may be expected stays a set of the expression's own parts."""
    return _either(*(_then(first, second) for first in _options(firsts)))


def _either(*terms: Term) -> Term:
    options = frozenset(option for term in terms for option in _options(term))
    return next(iter(options)) if len(options) == 1 else Either(options)


def _options(term: Term) -> frozenset[Term]:
    return term.options if isinstance(term, Either) else frozenset([term])


def _repeat(term: Term, least: int, most: int | None) -> Term:
    if most == 0 or term == NOTHING:
        return NOTHING
    return term if (least, most) == (1, 1) else Repeat(term, least, most)


# -- syntax ------------------------------------------------------------------------------------------------------------


@dataclass
class _Parser:
    text: str
    at: int = 0

    def parse(self) -> Term:
        try:
            term = self._alternatives()
        except RecursionError:
            raise UnknownSyntax("nested too deeply") from None
        if self.at < len(self.text):
            raise UnknownSyntax(self.text[self.at :])
        return term

    def _next(self) -> str:
        """The next character, taken; at the end there must be one."""
        if self.at == len(self.text):
            raise UnknownSyntax("the end")
        self.at += 1
        return self.text[self.at - 1]

    def _take(self, wanted: str) -> bool:
        """Whether `wanted` comes next, and then it is taken."""
        found = self.text.startswith(wanted, self.at)
        self.at += len(wanted) if found else 0
        return found

    def _alternatives(self) -> Term:
        terms = [self._sequence()]
        while self._take("|"):
            terms.append(self._sequence())
        return _either(*terms)

    def _sequence(self) -> Term:
        terms: list[Term] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            terms.append(self._repeated(self._atom()))
        sequence: Term = NOTHING
        for term in reversed(terms):
            sequence = _then(term, sequence)
        return sequence

    def _repeated(self, term: Term) -> Term:
        while self.at < len(self.text) and self.text[self.at] in "*+?{":
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self._next()) or self._count()
            self._take("?")  # prefers few, which is the same language
            term = _repeat(term, least, most)
        return term

    def _count(self) -> tuple[int, int | None]:
        words = self.text[self.at :].partition("}")[0]
        self.at += len(words) + 1
        least, comma, most = words.partition(",")
        if not least.isdecimal() or not (most or "0").isdecimal() or (most and int(most) < int(least)):
            raise UnknownSyntax(words)
        return int(least), int(most) if most else None if comma else int(least)

    def _atom(self) -> Term:
        character = self._next()
        if character == "(":
            if self._take("?") and not self._take(":"):
                raise UnknownSyntax("(?")
            term = self._alternatives()
            if not self._take(")"):
                raise UnknownSyntax("(")
            return term
        if character == "[":
            return self._class()
        if character == ".":
            return Symbol(ASCII - {"\n"}, ".")
        if character == "\\":
            members, beyond = self._escaped()
            return Symbol(members, beyond)
        if character in SYNTAX and character not in "]}":
            raise UnknownSyntax(character)
        return _literal(character)

    def _escaped(self) -> tuple[frozenset[str], str]:
        """What follows a backslash: the ASCII characters that it means, and a name for what it means beyond."""
        character = self._next()
        if character.lower() in CLASSES:
            members = CLASSES[character.lower()]
            return members if character.islower() else ASCII - members, f"\\{character}"
        if character in CONTROLS:
            return frozenset(CONTROLS[character]), ""
        if character in string.punctuation:
            return frozenset(character), ""
        raise UnknownSyntax(f"\\{character}")

    def _class(self) -> Term:
        begin, negated = self.at, self._take("^")
        members: set[str] = set()
        plain = not negated
        while not self.text.startswith("]", self.at) or self.at == begin + negated:
            low, beyond = self._member(first=self.at == begin + negated)
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                high, more = self._member()
                if beyond or more or len(low) != 1 or len(high) != 1:
                    raise UnknownSyntax("a range of what is not one ASCII character")
                low = frozenset(map(chr, range(ord(*low), ord(*high) + 1)))
            members |= low
            plain = plain and not beyond
        source = self.text[begin : self.at]
        self.at += 1
        return Symbol(ASCII - members if negated else frozenset(members), "" if plain else f"[{source}]")

    def _member(self, *, first: bool = False) -> tuple[frozenset[str], str]:
        character = self._next()
        if character == "\\":
            return self._escaped()
        stands_alone = character != "-" or first or self.text.startswith("]", self.at)
        if character in "[]" or self.text.startswith(("&&", "--", "~~"), self.at - 1) or not stands_alone:
            raise UnknownSyntax("a class of classes")
        return _literal(character)


def _literal(character: str) -> Symbol:
    return Symbol(frozenset(character)) if character in ASCII else Symbol(frozenset(), character)
