"""Dialogues as text with marked answers, and their tokens: what the model reads, and which part of it is learned.

Invariant: text before the place where generation starts is tokenised as one string, as the engine tokenises a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Segment:
    """A piece of text; `learned` when the model, not the caller, writes it."""

    text: str
    learned: bool = False


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue."""

    role: Role
    segments: tuple[Segment, ...]


def said(text: str) -> Segment:
    """Text that the model is to generate."""
    return Segment(text, learned=True)


def system(text: str) -> Message:
    return Message("system", (Segment(text),))


def user(text: str) -> Message:
    return Message("user", (Segment(text),))


def assistant(*parts: str | Segment) -> Message:
    """An assistant turn of fixed strings and generated segments."""
    return Message("assistant", tuple(Segment(p) if isinstance(p, str) else p for p in parts))


def render(messages: list[Message]) -> list[Segment]:
    """The ChatML text of `messages`; a turn that ends in a generated segment also learns where it ends."""
    segments: list[Segment] = []
    for message in messages:
        segments.append(Segment(f"<|im_start|>{message.role}\n"))
        segments.extend(message.segments)
        segments.append(Segment("<|im_end|>\n", learned=message.segments[-1].learned))
    return segments


def generation_points(segments: list[Segment]) -> list[int]:
    """Indices of the segments where a generation starts."""
    return [i for i, s in enumerate(segments) if s.learned and (i == 0 or not segments[i - 1].learned)]


def cut_at(segments: list[Segment], point: int) -> tuple[str, str]:
    """Prompt text before the generation point `point`, and the text generated there."""
    end = point
    while end < len(segments) and segments[end].learned:
        end += 1
    return "".join(s.text for s in segments[:point]), "".join(s.text for s in segments[point:end])


def encode_merged(tokenizer: Tokenizer, segments: list[Segment]) -> tuple[list[int], list[bool]]:
    """Token ids of the whole text as one string, and which of them overlap learned text."""
    encoding = tokenizer.encode("".join(s.text for s in segments), add_special_tokens=False)
    learned = bytearray()
    for segment in segments:
        learned += (b"\1" if segment.learned else b"\0") * len(segment.text)
    return encoding.ids, [any(learned[a:b]) for a, b in encoding.offsets]


def encode_at(tokenizer: Tokenizer, segments: list[Segment], point: int) -> tuple[list[int], list[bool]]:
    """Token ids with the prompt and the answer at `point` tokenised apart, as they are when the model generates."""
    prompt_ids, prompt_mask = encode_merged(tokenizer, segments[:point]) if point else ([], [])
    _, answer = cut_at(segments, point)
    answer_ids = tokenizer.encode(answer, add_special_tokens=False).ids
    return prompt_ids + answer_ids, prompt_mask + [True] * len(answer_ids)
