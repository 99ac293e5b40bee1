"""From token ids to text as it may be shown: whole characters only, cut at stop strings, nothing that may have to be taken back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import regex
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from .errors import RequestError
from .sampling_params import SamplingParams

PROMPT_TAIL = 6
"""Prompt tokens that the decoder sees before the output, so that a first token's leading space is kept."""
REPLACEMENT = "\ufffd"
"""How bytes that are not a character, or not yet, are decoded."""
STOP_REGEX_TAIL = 256
"""A `stop_regex` is searched in this many characters before the newest ones, so a longer match may be missed."""
STOP_REGEX_SECONDS = 0.1


@dataclass(slots=True)
class TextStream:
    """The visible text of one sequence, built token by token.

    `matched` is the stop string (or the text that a `stop_regex` matched) once the text holds one; the text ends before it,
    or after it with `no_stop_trim`. Until then, an end of the text that may be the beginning of a stop is held back.
    """

    tokenizer: Tokenizer
    params: SamplingParams
    prompt: list[int]
    text: str = ""
    matched: str | None = None
    _shown: int = 0
    _held: int = 0
    _undecoded: list[int] = field(default_factory=list)
    _begun: str = ""
    """How the decoder would show a character that the tokens before the output leave unfinished."""
    _decoder: DecodeStream = field(init=False)

    def __post_init__(self) -> None:
        self._start_after(self.prompt)

    def push(self, token: int) -> None:
        """Add one token; look at `matched` afterwards. Raises `RequestError` if a `stop_regex` takes too long."""
        self._undecoded.append(token)
        piece = self._step(token)
        if piece is not None:
            self._undecoded.clear()
            self._append(piece)

    def take(self, *, final: bool = False) -> str:
        """The text that became visible since the last call; all that is left when `final`."""
        if final and self._undecoded and self.matched is None:
            with contextlib.suppress(RequestError):  # the request has ended anyway
                self._append(self._decode(self._undecoded))
            self._undecoded.clear()
        end = len(self.text) if final or self.matched is not None else len(self.text) - self._held
        piece = self.text[self._shown : end]
        self._shown = max(self._shown, end)
        return piece

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=self.params.skip_special_tokens)

    def _start_after(self, tokens: list[int]) -> None:
        """Let the decoder go on after `tokens`, whose own text it does not give again."""
        tail = tokens[-PROMPT_TAIL:]
        whole = next(n for n in range(len(tail), -1, -1) if not self._decode(tail[:n]).endswith(REPLACEMENT))
        self._decoder = DecodeStream(ids=tail[:whole], skip_special_tokens=self.params.skip_special_tokens)
        for token in tail[whole:]:
            self._decoder.step(self.tokenizer, token)
        self._begun = self._decode(tail[whole:])

    def _step(self, token: int) -> str | None:
        try:
            piece = self._decoder.step(self.tokenizer, token)
        except Exception:  # tokenizers' only class, for bytes that change how the text before them is decoded
            piece = self._decode(self._undecoded)
            self._start_after(self._undecoded)
            return piece
        if piece is not None:
            piece, self._begun = piece.removeprefix(self._begun), ""
        return piece

    def _append(self, piece: str) -> None:
        searched = len(self.text)
        self.text += piece
        if stop := self._find_stop(searched):
            start, end = stop
            self.matched = self.text[start:end]
            self.text = self.text[: end if self.params.no_stop_trim else start]
        else:
            self._held = self._held_back()

    def _find_stop(self, searched: int) -> tuple[int, int] | None:
        """Where the first stop begins and ends, if one lies in the text and ends after the first `searched` characters."""
        found = []
        for stop in self.params.stop:
            start = self.text.find(stop, max(0, searched - len(stop) + 1))
            found += [(start, start + len(stop))] if start >= 0 else []
        for pattern in self.params.stop_regex:
            match = _search(pattern, self.text, max(0, searched - STOP_REGEX_TAIL))
            found += [match.span()] if match and not match.partial and match.end() > match.start() else []
        return min(found, default=None)

    def _held_back(self) -> int:
        """Length of the longest end of the text that may begin a stop."""
        longest = 0
        for stop in self.params.stop:
            overlaps = (n for n in range(min(len(stop) - 1, len(self.text)), 0, -1) if self.text.endswith(stop[:n]))
            longest = max(longest, next(overlaps, 0))
        for pattern in self.params.stop_regex:
            match = _search(pattern, self.text, max(0, len(self.text) - STOP_REGEX_TAIL))
            longest = max(longest, match.end() - match.start() if match and match.partial else 0)
        return min(longest, len(self.text) - self._shown)


def _search(pattern: str, text: str, start: int) -> regex.Match[str] | None:
    try:
        return regex.search(pattern, text, pos=start, partial=True, timeout=STOP_REGEX_SECONDS)
    except TimeoutError:
        raise RequestError(f"stop_regex {pattern!r} takes too long to search; use one that backtracks less.") from None
