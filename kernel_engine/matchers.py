"""Where a sequence stands in its constraint: which tokens may come next, and what must.

The masks of a regular expression, of which one over a large vocabulary takes a millisecond, are kept by the state that the text
is in, for all who follow the same expression, and over such a vocabulary made before a text gets there.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from .automaton import Automaton

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from xgrammar import CompiledGrammar

MASK_BYTES = 64 << 20
"""Of all masks that are kept."""
AHEAD_STATES, AHEAD_SECONDS = 512, 1.0
"""States of an expression whose masks are made ahead, and how long that may take."""


class Matcher(Protocol):
    """Where a sequence stands in its constraint."""

    def fill(self, bitmask: Tensor, row: int) -> None:
        """Set bit `t` of `bitmask[row]` (int32, 32 tokens a word) for each token `t` that may come next."""
        ...

    def accept(self, token: int) -> bool:
        """Go on by `token`; False if the constraint does not allow it, and then the matcher must not be used again."""
        ...

    def rollback(self, count: int) -> None:
        """Take back the latest `count` accepted tokens."""
        ...

    def forced(self) -> str:
        """The text that must come next, whatever the model says; empty if it has a choice."""
        ...

    @property
    def finished(self) -> bool:
        """Whether nothing can follow."""
        ...


class XGrammarMatcher:
    """A `Matcher` on an xgrammar automaton."""

    def __init__(self, compiled: CompiledGrammar):
        from xgrammar import GrammarMatcher

        self._matcher = GrammarMatcher(compiled)

    def fill(self, bitmask: Tensor, row: int) -> None:
        self._matcher.fill_next_token_bitmask(bitmask, row)  # pyright: ignore[reportArgumentType]

    def accept(self, token: int) -> bool:
        return self._matcher.accept_token(token)

    def rollback(self, count: int) -> None:
        self._matcher.rollback(count)

    def forced(self) -> str:
        try:
            return self._matcher.find_jump_forward_string()
        except UnicodeDecodeError:  # the rest of a character that the last token began: left to the model's tokens
            return ""

    @property
    def finished(self) -> bool:
        return self._matcher.is_terminated()


class KeptMasks:
    """The masks that were used last, by expression and state. Any thread may ask."""

    def __init__(self) -> None:
        self._masks: dict[tuple[Automaton, int], Tensor] = {}
        self._lock = threading.Lock()

    def get(self, automaton: Automaton, state: int) -> Tensor | None:
        with self._lock:
            mask = self._masks.pop((automaton, state), None)
            if mask is not None:
                self._masks[automaton, state] = mask
            return mask

    def put(self, automaton: Automaton, state: int, mask: Tensor) -> None:
        with self._lock:
            self._masks[automaton, state] = mask
            if len(self._masks) * mask.nbytes > MASK_BYTES:
                del self._masks[next(iter(self._masks))]


def make_ahead(matcher: LLMatcher, tokenizer: LLTokenizer, automaton: Automaton, masks: KeptMasks, words: int) -> None:
    """Make the masks, of `words` int32 each, of the states that are nearest to where `matcher` is, the beginning."""
    for state, text in itertools.islice(automaton.choices(AHEAD_SECONDS), AHEAD_STATES):
        if masks.get(automaton, state) is not None:
            continue
        there, mask = matcher.deep_copy(), torch.zeros(words, dtype=torch.int32)
        if there.consume_tokens(tokenizer.tokenize_str(text)) and not there.is_stopped():
            there.unsafe_compute_mask_ptr(mask.data_ptr(), mask.nbytes)
            if not there.is_error():
                masks.put(automaton, state, mask)


class Place:
    """Where one text is in an expression, after each of its tokens; None where that is not known."""

    def __init__(self, automaton: Automaton, masks: KeptMasks, spell: Callable[[int], bytes]):
        self._automaton, self._masks, self._spell = automaton, masks, spell
        self._states: list[int | None] = [0]

    def advance(self, token: int) -> None:
        text = self._spell(token).decode("latin-1")  # what is not ASCII is not followed, whatever it is
        self._states.append(self._automaton.follow(self._states[-1], text))

    def go_back(self, count: int) -> None:
        del self._states[len(self._states) - count :]

    @property
    def mask(self) -> Tensor | None:
        """The one that was made for another text in the same state."""
        state = self._states[-1]
        return None if state is None else self._masks.get(self._automaton, state)

    def keep(self, mask: Tensor) -> None:
        if (state := self._states[-1]) is not None:
            self._masks.put(self._automaton, state, mask.clone())


class LLGuidanceMatcher:
    """A `Matcher` on a llguidance automaton; `place` follows the same text for the sake of its masks."""

    def __init__(self, matcher: LLMatcher, place: Place | None = None):
        self._matcher, self._place = matcher, place

    def fill(self, bitmask: Tensor, row: int) -> None:
        words = bitmask[row]
        if self._place and (mask := self._place.mask) is not None:
            words.copy_(mask)
            return
        self._matcher.unsafe_compute_mask_ptr(words.data_ptr(), words.numel() * words.element_size())
        if self._matcher.is_error():  # it went beyond its limits of time or size
            words.zero_()
        elif self._place:
            self._place.keep(words)

    def accept(self, token: int) -> bool:
        accepted = self._matcher.consume_token(token)
        if accepted and self._place:
            self._place.advance(token)
        return accepted

    def rollback(self, count: int) -> None:
        self._matcher.rollback(count)
        if self._place:
            self._place.go_back(count)

    def forced(self) -> str:
        # A forced part of a character is left to the model's tokens.
        return self._matcher.compute_ff_bytes().decode(errors="ignore")

    @property
    def finished(self) -> bool:
        return self._matcher.is_stopped()
