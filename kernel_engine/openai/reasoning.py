"""What a model thinks apart from what it says: text between `<think>` and `</think>` at the beginning of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OPEN, CLOSE = "<think>", "</think>"
ALWAYS_THINKS = "deepseek-r1"
"""The value of `--reasoning-parser` for models that think without saying so first; `qwen3` is for those that say so."""
Stage = Literal["begins", "thinks", "says"]
"""Where an answer is: it may begin to think, thinks, or has done so."""


def first_stage(parser: str, prompt: str) -> Stage:
    """Where an answer to `prompt` begins. Templates may open, or open and close, the thinking in the prompt itself."""
    end = prompt.rstrip()
    if end.endswith(CLOSE):
        return "says"
    return "thinks" if end.endswith(OPEN) or parser == ALWAYS_THINKS else "begins"


@dataclass(slots=True)
class ReasoningReader:
    """Splits a text that comes in pieces. White space around the thoughts belongs to neither side."""

    stage: Stage
    _held: str = ""
    _leading: bool = True
    """Whether nothing of the present side has been given yet."""

    def feed(self, text: str, *, final: bool = False) -> tuple[str, str]:
        """What `text` adds to the thoughts and to what is said."""
        self._held += text
        thoughts = ""
        if self.stage != "says":
            thoughts = self._think(final)
        return thoughts, self._say() if self.stage == "says" else ""

    def _think(self, final: bool) -> str:
        begun = self._held.lstrip() if self._leading else self._held
        if self._leading:
            if begun.startswith(OPEN):
                self.stage, begun = "thinks", begun[len(OPEN) :].lstrip()
            elif OPEN.startswith(begun) and not final:
                return ""  # it may still become the mark
            elif self.stage == "begins":
                self.stage, self._leading = "says", False
                return ""
        end = begun.find(CLOSE)
        if end >= 0:
            self.stage, self._leading = "says", True
            self._held = begun[end + len(CLOSE) :]
            return begun[:end].rstrip()
        kept = len(begun) if final else len(begun[: len(begun) - overlap(begun, CLOSE)].rstrip())
        self._held, self._leading = begun[kept:], self._leading and not begun[:kept]
        return begun[:kept]

    def _say(self) -> str:
        said = self._held.lstrip() if self._leading else self._held
        self._held, self._leading = "", self._leading and not said
        return said


def overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that may begin `mark`."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)
