"""What a step computes: segments of sequences. Plain data that the scheduler makes and everyone else reads."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from .request import Sequence


@dataclass(frozen=True, slots=True)
class Segment:
    """`sequence` is extended by `count` tokens from position `start` on. The last of them may be a `draft`: not the
    sequence's yet, but what is thought to come next.
    """

    sequence: Sequence
    start: int
    count: int
    draft: list[int] = field(default_factory=list)

    @property
    def known(self) -> int:
        """The position after the last token that is the sequence's own."""
        return self.start + self.count - len(self.draft)

    @property
    def completes(self) -> bool:
        """Whether the next token can be sampled after this step; to be asked before that has been done."""
        return self.known == len(self.sequence.tokens)

    @property
    def tokens(self) -> list[int]:
        return self.sequence.tokens[self.start : self.known] + self.draft

    @property
    def accepted(self) -> int:
        """How many leading tokens of the draft the sequence has got."""
        if not self.draft:
            return 0
        pairs = zip(self.draft, self.sequence.tokens[self.known :], strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    def with_draft(self, limit: int) -> Segment:
        """This segment, lengthened by up to `limit` tokens if it can be."""
        draft = self.sequence.draft(limit) if self.completes else []
        return Segment(self.sequence, self.start, self.count + len(draft), draft)

    def without_draft(self) -> Segment:
        return Segment(self.sequence, self.start, self.known - self.start)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step. `admitted` sequences are new in it, `cached` of their tokens came from the tree."""

    segments: list[Segment]
    admitted: list[Sequence]
    cached: int

    @property
    def prefill_tokens(self) -> int:
        return sum(s.known - s.start for s in self.segments if s.start < s.sequence.prompt_length)
