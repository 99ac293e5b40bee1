"""Tells a model's reasoning from its answer while both stream in.

What comes out is stripped of white space at either end, so that it does not depend on how the text was cut into chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sgl_jupyter.lang.hint import did_you_mean

Part = tuple[Literal["reasoning", "answer"], str]


@dataclass(frozen=True)
class ReasoningFormat:
    """How a kind of model marks its reasoning; `implied` if it reasons from its first token on, marked or not."""

    start: str = "<think>"
    end: str = "</think>"
    implied: bool = False


FORMATS: Mapping[str, ReasoningFormat] = {
    "deepseek-r1": ReasoningFormat(implied=True),
    "deepseek-v3": ReasoningFormat(),
    "glm45": ReasoningFormat(),
    "kimi": ReasoningFormat("◁think▷", "◁/think▷"),
    "qwen3": ReasoningFormat(),
    "qwen3-thinking": ReasoningFormat(implied=True),
    "step3": ReasoningFormat(implied=True),
}
"""By SGLang's names of its reasoning parsers."""


def reasoning_format(model_type: str | None) -> ReasoningFormat:
    """The format of a kind of model.

    Raises:
        ValueError: `model_type` is missing or unknown.
    """
    if not model_type:
        raise ValueError(f"model_type must be given, one of {', '.join(FORMATS)}")
    if model_type.lower() not in FORMATS:
        hint = did_you_mean(model_type.lower(), FORMATS)
        raise ValueError(f"Unsupported model type: {model_type!r} is not one of {', '.join(FORMATS)}{hint}")
    return FORMATS[model_type.lower()]


class ReasoningSplitter:
    """Takes the chunks of one generation, and gives their parts as soon as it is sure what they are."""

    def __init__(self, fmt: ReasoningFormat) -> None:
        self._format = fmt
        self._pending = ""
        self._begun = False
        self._reasoning = _Stripped()
        self._answer = _Stripped()
        self._thinking = fmt.implied

    def feed(self, text: str) -> Iterator[Part]:
        """The parts that are sure now that `text` has come."""
        self._pending += text
        if not self._begun and not self._begin():
            return
        if self._thinking:
            thought, marker, rest = self._pending.partition(self._format.end)
            if not marker:
                keep = _overlap(self._pending, self._format.end)
                thought, self._pending = (
                    self._pending[: len(self._pending) - keep],
                    self._pending[-keep:] if keep else "",
                )
            else:
                self._thinking, self._pending = False, rest
            yield from self._reasoning.parts("reasoning", thought)
        if not self._thinking:
            answer, self._pending = self._pending, ""
            yield from self._answer.parts("answer", answer)

    def rest(self) -> Iterator[Part]:
        """What is left when the generation has ended."""
        if self._thinking:
            yield from self._reasoning.parts("reasoning", self._pending)
        else:
            yield from self._answer.parts("answer", self._pending)

    def _begin(self) -> bool:
        """Whether enough has come to know if the text begins with the marker, which is dropped then."""
        text = self._pending.lstrip()
        if text.startswith(self._format.start):
            self._thinking, self._pending = True, text.removeprefix(self._format.start)
        elif self._format.start.startswith(text):
            return False
        self._begun = True
        return True


def split_reasoning(fmt: ReasoningFormat, text: str) -> tuple[str, str]:
    """The reasoning and the answer of a whole text."""
    splitter = ReasoningSplitter(fmt)
    parts = [*splitter.feed(text), *splitter.rest()]
    reasoning, answer = ("".join(part for kind, part in parts if kind == wanted) for wanted in ("reasoning", "answer"))
    return reasoning, answer


@dataclass
class _Stripped:
    """A stream without the white space at its ends: what may be its end is held back."""

    _held: str = field(default="", init=False)
    _begun: bool = field(default=False, init=False)

    def parts(self, kind: Literal["reasoning", "answer"], text: str) -> Iterator[Part]:
        text = self._held + text if self._begun else text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        self._begun = self._begun or bool(kept)
        if kept:
            yield kind, kept


def _overlap(text: str, marker: str) -> int:
    """The length of the longest end of `text` with which `marker` begins."""
    return next((n for n in range(min(len(text), len(marker) - 1), 0, -1) if text.endswith(marker[:n])), 0)
