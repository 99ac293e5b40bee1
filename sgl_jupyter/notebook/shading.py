"""Generated text cut into its tokens, each with its probability."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sgl_jupyter.lang.events import Token

MAX_TOKENS = 4000
"""Of one generation, as each costs the page an element. The rest of its text comes in one piece."""
_REACH = 16
"""How far ahead in the text a token is looked for: what is passed over is the text of tokens that are parts of a character."""

Piece = tuple[str, float | None]
"""Some text, with its probability if it is a token's."""


def shaded(texts: Sequence[str], tokens: Iterable[Token]) -> list[list[Piece]]:
    """The pieces of each of `texts`, which follow one another in one generation.

    Tokens that the texts do not show, such as the one that ends the generation, are left out.
    """
    places = list(_places("".join(texts), tokens))
    result, start = [], 0
    for text in texts:
        result.append(list(_pieces(text, start, places)))
        start += len(text)
    return result


def _places(whole: str, tokens: Iterable[Token]) -> Iterator[tuple[int, int, float]]:
    """Where the tokens are: start, end, probability."""
    place = 0
    for token in islice(tokens, MAX_TOKENS):
        if token.text and token.logprob is not None:
            start = whole.find(token.text, place, place + len(token.text) + _REACH)
            if start >= 0:
                place = start + len(token.text)
                yield start, place, math.exp(token.logprob)


def _pieces(text: str, offset: int, places: Iterable[tuple[int, int, float]]) -> Iterator[Piece]:
    """Those of a text that begins at `offset`."""
    done = 0
    for start, end, probability in places:
        first, last = max(start - offset, 0), min(end - offset, len(text))
        if first >= last:
            continue
        if first > done:
            yield text[done:first], None
        yield text[first:last], probability
        done = last
    if done < len(text):
        yield text[done:], None
