"""Tool calls read out of an answer's text while it comes: what is text, which tool is called, and with what.

What looks like a call but is none, or names no tool of the request, stays text.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import regex

from .call_forms import CallForm, Form

HEAD = regex.compile(r'\{\s*"name"\s*:\s*"([^"\\]*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
"""A call up to its arguments, in the usual order."""
REST = regex.compile(r"[^{}]*\}")
"""What follows the arguments in a call's object."""
NEXT = regex.compile(r"[\s,;]*(?=\{)")
"""What stands between two calls."""
PYTHONIC_BEGIN = regex.compile(r"\s*\[\s*[A-Za-z_]\w*(?:\.\w+)*\s*\(")


@dataclass(frozen=True, slots=True)
class Said:
    """Text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call begins."""

    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the latest call's arguments, which are JSON."""

    text: str


Piece = Said | Called | Arguments
Stage = Literal["text", "call", "arguments", "rest", "after"]
"""Where a reader is: in text, before a call, in its arguments, in the rest of its object, or after it."""


class CallReader(Protocol):
    def feed(self, text: str, *, final: bool = False) -> list[Piece]:
        """What `text` adds to the answer; with `final` nothing is held back any more."""
        ...


def call_reader(form: Form, names: set[str]) -> CallReader:
    """Reads calls of the tools `names`."""
    return ObjectReader(form, names) if isinstance(form, CallForm) else PythonicReader(names)


class ObjectReader:
    """Reads calls that are JSON objects. Text that may become a call is held back until it is one, or is none."""

    def __init__(self, form: CallForm, names: set[str]):
        self._form, self._names = form, names
        self._stage: Stage = "text"
        self._held = ""
        self._opened = ""
        """What was read before the present call; text again if it is none."""
        self._started = self._called = False
        self._nesting, self._scanned = Nesting(), 0

    def feed(self, text: str, *, final: bool = False) -> list[Piece]:
        self._held += text
        pieces: list[Piece] = []
        steps = {
            "text": self._read_text, "call": self._read_call, "arguments": self._read_arguments, "rest": self._read_rest,
            "after": self._read_after,
        }  # fmt: skip
        while steps[self._stage](pieces, final):
            pass
        return pieces

    # Each step reads what it can from what is held, and returns whether the next step may go on.

    def _read_text(self, pieces: list[Piece], final: bool) -> bool:
        form = self._form
        look = form.begin.match if form.at_start else form.begin.search
        found = None if form.at_start and self._started else look(self._held, partial=True)
        begins = found is not None and not found.partial
        start = found.start() if found and (begins or not final) else len(self._held)
        self._say(pieces, self._held[:start])
        if found is None or not begins:
            self._held = self._held[start:]
            return False
        self._started = True
        self._expect_call(found)
        return True

    def _read_call(self, pieces: list[Piece], final: bool) -> bool:
        space = len(self._held) - len(self._held.lstrip())
        self._opened, self._held = self._opened + self._held[:space], self._held[space:]
        head = HEAD.match(self._held, partial=True)
        if head and not head.partial and head[1] in self._names:
            pieces.append(Called(head[1]))
            self._called = True
            self._held, self._stage, self._nesting = self._held[head.end() :], "arguments", Nesting()
            return True
        end = self._object_end()
        if end is None and not final:
            return False
        taken = self._held[:end]
        self._held = self._held[len(taken) :]
        if call := _parse_object(taken, self._names):
            pieces += call
            self._called, self._stage = True, "after"
        else:
            self._say(pieces, self._opened + taken)
            self._stage = "text"
        return True

    def _object_end(self) -> int | None:
        """Where the object that is held ends; 0 if it is none, None if its end has not come."""
        if self._held and not self._held.startswith("{"):
            return 0
        end = self._nesting.end(self._held[self._scanned :])
        found = None if end is None else self._scanned + end
        self._scanned = len(self._held)
        return found

    def _read_arguments(self, pieces: list[Piece], final: bool) -> bool:
        end = self._nesting.end(self._held)
        taken = self._held[:end]
        pieces += [Arguments(taken)] if taken else []
        self._held = self._held[len(taken) :]
        if end is None:
            return False
        self._stage = "rest"
        return True

    def _read_rest(self, pieces: list[Piece], final: bool) -> bool:
        found = REST.match(self._held, partial=True)
        if found and found.partial:
            return False
        self._held, self._stage = self._held[found.end() if found else 0 :], "after"
        return True

    def _read_after(self, pieces: list[Piece], final: bool) -> bool:
        found = NEXT.match(self._held, partial=True)
        if found and not found.partial:
            self._expect_call(found)
            return True
        closed = self._form.end.match(self._held, partial=True)
        if not final and any(match and match.partial for match in (found, closed)):
            return False
        self._held = self._held[closed.end() if closed and not closed.partial else 0 :]
        self._stage = "text"
        return True

    def _expect_call(self, opened: regex.Match[str]) -> None:
        self._opened, self._held = opened[0], self._held[opened.end() :]
        self._stage, self._nesting, self._scanned = "call", Nesting(), 0

    def _say(self, pieces: list[Piece], text: str) -> None:
        if text and (text.strip() or not self._called):  # white space after calls is none of the answer's
            self._started = True
            pieces.append(Said(text))


class PythonicReader:
    """Reads a whole answer of the form `[name(argument=value), ...]`, whose values are literals; other answers are text."""

    def __init__(self, names: set[str]):
        self._names = names
        self._held = ""
        self._is_text = False

    def feed(self, text: str, *, final: bool = False) -> list[Piece]:
        self._held += text
        self._is_text = self._is_text or not PYTHONIC_BEGIN.match(self._held, partial=True)
        if not final and not self._is_text:
            return []
        taken, self._held = self._held, ""
        calls = [] if self._is_text else _parse_pythonic(taken, self._names)
        return calls or ([Said(taken)] if taken else [])


class Nesting:
    """Follows a JSON text to where its outermost bracket closes."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = self._escaped = False

    def end(self, text: str) -> int | None:
        """Index in `text`, which comes after what was given before, just behind that bracket; None if it is still open."""
        for index, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = char == "\\", char != '"'
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return index + 1
        return None


def _parse_object(text: str, names: set[str]) -> list[Piece]:
    """A whole call whose fields come in another order; empty if it is none."""
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(call, dict):
        return []
    return _pieces(call.get("name"), call.get("arguments", call.get("parameters")), names)


def _parse_pythonic(text: str, names: set[str]) -> list[Piece]:
    try:
        body = ast.parse(text.strip(), mode="eval").body
        pieces: list[Piece] = []
        for call in body.elts if isinstance(body, ast.List) else []:
            if not isinstance(call, ast.Call) or call.args:
                return []
            arguments = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
            found = _pieces(ast.unparse(call.func), arguments, names)
            if not found:
                return []
            pieces += found
        return pieces
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return []


def _pieces(name: Any, arguments: Any, names: set[str]) -> list[Piece]:
    if not isinstance(name, str) or name not in names or not isinstance(arguments, dict):
        return []
    return [Called(name), Arguments(json.dumps(arguments, ensure_ascii=False))]
