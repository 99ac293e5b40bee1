"""What one dialogue has already said, so that a later piece can agree with it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Memory:
    """Names of the countries listed so far, in order."""

    listed: list[str] = field(default_factory=list)
