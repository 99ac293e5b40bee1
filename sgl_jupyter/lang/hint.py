"""The word that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence that refuses `word`: which of the known words is near it; nothing where none is."""
    near = difflib.get_close_matches(word, [*known], 1)
    return f"; did you mean {near[0]!r}?" if near else ""
