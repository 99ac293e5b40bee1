"""N-gram speculation: a text often repeats itself, so what followed the last few tokens the last time may follow them again.

A `Drafter` guesses the next tokens of one sequence; the step that computes its last token computes the guessed ones behind
it, and what the sampler then chooses decides. Invariant: a draft changes how many forward passes a text takes, never its
tokens. (Prompt lookup decoding, https://github.com/apoorvumang/prompt-lookup-decoding; SGLang's algorithm NGRAM.)
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

LONGEST = 6
"""Tokens of an n-gram; more do not make a guess much better."""
CANDIDATES = 64
"""Earlier places of the last token that are looked at, the latest ones first."""


@dataclass(slots=True)
class Drafter:
    """Guesses how one sequence goes on, at most `most` tokens at once: with what a constraint forces, else with an n-gram.

    It learns from its guesses: the next draft is about twice as long as the right part of the last one, and after one that was
    wrong from its first token the next n-gram must be longer.
    """

    most: int
    steps: int = 0
    """Forward passes that gave the sequence tokens, with a draft or without."""
    drafted: int = 0
    accepted: int = 0
    forced: list[int] = field(default_factory=list)
    """Tokens that spell what a constraint forces next."""
    _length: int = 1
    _least: int = 1
    _places: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Where each token was seen."""
    _seen: int = 0

    def propose(self, tokens: list[int], limit: int) -> list[int]:
        """Up to `limit` tokens that may follow `tokens`, which only grow from call to call; [] where nothing repeats.

        A repetition that reaches the end of the text is taken to go on for ever.
        """
        if self.forced:
            return self.forced[: max(0, min(limit, self.most))]
        count = min(limit, self._length)
        match = self._match(tokens) if count > 0 else None
        return [] if match is None else [tokens[match + i % (len(tokens) - match)] for i in range(count)]

    def verified(self, drafted: int, accepted: int) -> None:
        """Note a step that gave tokens, and how many of those it drafted were right."""
        self.steps += 1
        self.drafted += drafted
        self.accepted += accepted
        if drafted:
            self._length = min(self.most, 2 * accepted + 1)
            self._least = 1 if accepted else min(LONGEST, self._least + 1)

    def report(self, completion_tokens: int) -> dict[str, Any]:
        """SGLang's figures for `meta_info`."""
        return {
            "spec_verify_ct": self.steps,
            "spec_accept_length": completion_tokens / max(1, self.steps),
            "spec_accept_rate": self.accepted / max(1, self.drafted),
            "spec_accept_token_num": self.accepted,
            "spec_draft_token_num": self.drafted,
        }

    def _match(self, tokens: list[int]) -> int | None:
        """The end of the latest of the longest n-grams that equal the text's last one."""
        for place in range(self._seen, len(tokens) - 1):
            self._places[tokens[place]].append(place)
        self._seen = max(self._seen, len(tokens) - 1)
        best, longest = None, self._least - 1
        for place in reversed(self._places[tokens[-1]][-CANDIDATES:]):
            if (length := _common_suffix(tokens, place)) > longest:
                best, longest = place + 1, length
            if longest == LONGEST:
                break
        return best


def _common_suffix(tokens: list[int], place: int) -> int:
    """How many tokens up to `place` equal those up to the end, counted to `LONGEST`."""
    length = 1
    while length < LONGEST and length <= place and tokens[place - length] == tokens[-1 - length]:
        length += 1
    return length
