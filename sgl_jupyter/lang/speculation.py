"""Speculative execution for models behind an API, where every call has its price: `@function(num_api_spec_tokens=N)`.

A chat model answers a whole assistant turn in one call; a model that continues text writes on past the end of one generation.
Either way the text is then matched with what the program says, and generations take theirs from it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sgl_jupyter.backends.base import SamplingParams
from sgl_jupyter.lang.ir import SglConstantText, SglExpr, SglGen

ATTEMPTS = 3
"""Calls for one assistant turn, before an answer that does not fit the program is an error."""


class SpeculationFailed(ValueError):
    """The model's answer does not fit the turn that the program describes."""


def turn_pattern(turn: Sequence[SglExpr], stops: Sequence[Sequence[str]]) -> re.Pattern[str]:
    """What an answer to the turn must look like, with a group for each generation.

    Constants come as they are, but for the first one, with which the turn opens: a model need not repeat it. A generation ends
    before any of its `stops`, and before the constant that follows it; what comes after the last generation does not matter.
    """
    parts = [expr for expr in turn if isinstance(expr, SglConstantText | SglGen)]
    pattern = ""
    left = len(stops)
    for place, expr in enumerate(parts):
        if isinstance(expr, SglConstantText):
            text = re.escape(expr.value)
            pattern += text if place else rf"\s*(?:{text}|{re.escape(expr.value.strip())}\s*)?"
            continue
        following = parts[place + 1] if place + 1 < len(parts) else None
        ends = [*stops[-left], *([following.value] if isinstance(following, SglConstantText) else [])]
        left -= 1
        pattern += "((?:" + "".join(f"(?!{re.escape(end)})" for end in ends) + ".)*)"
        if not left:
            break
    return re.compile(pattern, re.DOTALL)


def match_turn(pattern: re.Pattern[str], answer: str) -> list[str] | None:
    """The text of each generation, if the answer fits."""
    found = pattern.match(answer)
    return None if found is None else list(found.groups())


class Lookahead:
    """What a model has written beyond the end of the last generation."""

    def __init__(self) -> None:
        self._text = ""

    def fill(self, text: str) -> None:
        self._text = text

    def skip(self, constant: str) -> None:
        """The program goes on with `constant`: what was written ahead is of use only if it does so too."""
        self._text = self._text.removeprefix(constant) if self._text.startswith(constant) else ""

    def take(self, stop: Sequence[str], to_its_end: bool = False) -> str | None:
        """The text up to the first of the stop strings; None where none is there, unless the text is to be taken whole."""
        ends = [place for place in map(self._text.find, stop) if place >= 0]
        if not ends and not to_its_end:
            return None
        end = min(ends, default=len(self._text))
        taken, self._text = self._text[:end], self._text[end:]
        return taken


def can_look_ahead(params: SamplingParams) -> bool:
    """Whether a generation's end is found in a text that was written without regard to it."""
    constrained = params.regex or params.json_schema or params.ebnf or params.stop_regex or params.stop_token_ids
    return bool(params.stop) and params.n == 1 and not constrained
