"""One step as tensors: a flat run of query tokens, each of which knows its position, its slot and its context.

tokens  | d0 | d1 | d2 | first extend ........ | second extend ... |
          decoding: one token each; attend in     more than one token each; attends
          groups, padded to the group's longest   segment by segment
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .pool import Rows
from .schedule import Segment

SHORT = 255
"""A context, in tokens, too short to be worth its own pass of attention."""


@dataclass(frozen=True, slots=True)
class Decodes:
    """Tokens `begin..end` of the batch extend one sequence each, all of contexts of about the same length.

    `slots` [sequences, longest] are their contexts, padded with slot 0; `mask` [sequences, 1, 1, longest] is true where
    there is context.
    """

    begin: int
    end: int
    slots: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Extend:
    """Tokens `begin..end` of the batch continue one sequence whose whole context, they included, lies in `slots`."""

    begin: int
    end: int
    slots: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """`input_ids`, `positions` and `out_slots` have one entry a query token; `logit_rows` are those whose logits are wanted.

    `segments` are in the order of the tokens, and `logit_counts[i]` rows belong to `segments[i]`.
    """

    segments: list[Segment]
    input_ids: Tensor
    positions: Tensor
    out_slots: Tensor
    logit_rows: Tensor
    logit_counts: list[int]
    decodes: list[Decodes]
    extends: list[Extend]


def build_batch(segments: list[Segment], rows: Rows, device: torch.device) -> Batch:
    """Lay out `segments`, decoding ones first, shorter contexts before longer."""
    ordered = sorted(segments, key=lambda s: (s.count > 1, _length_class(s) if s.count == 1 else 0))
    ends = np.cumsum([s.count for s in ordered])
    tokens, positions, out_slots, logit_rows, counts = [], [], [], [], []
    for segment, end in zip(ordered, ends.tolist(), strict=True):
        stop = segment.start + segment.count
        tokens += segment.sequence.tokens[segment.start : stop]
        positions.append(np.arange(segment.start, stop))
        out_slots.append(rows.table[segment.sequence.row, segment.start : stop])
        wanted = rows_with_logits(segment)
        counts.append(len(wanted))
        logit_rows += [end - stop + position for position in wanted]
    extends = [
        Extend(end - s.count, end, _tensor(rows.table[s.sequence.row, : s.start + s.count], device))
        for s, end in zip(ordered, ends.tolist(), strict=True)
        if s.count > 1
    ]
    return Batch(
        segments=ordered,
        input_ids=torch.tensor(tokens, device=device),
        positions=_tensor(np.concatenate(positions), device),
        out_slots=_tensor(np.concatenate(out_slots), device),
        logit_rows=torch.tensor(logit_rows, dtype=torch.long, device=device),
        logit_counts=counts,
        decodes=list(_decodes(ordered, rows, device)),
        extends=extends,
    )


def rows_with_logits(segment: Segment) -> list[int]:
    """Positions in `segment` whose logits are needed: those before a prompt token to be scored, and the last if it completes."""
    sequence, stop = segment.sequence, segment.start + segment.count
    scored = range(max(segment.start, sequence.unscored - 1), min(stop, sequence.prompt_length - 1))
    return [*scored, stop - 1] if segment.completes else [*scored]


def _decodes(ordered: list[Segment], rows: Rows, device: torch.device) -> Iterable[Decodes]:
    decoding = [s for s in ordered if s.count == 1]
    end = 0
    for _, members in itertools.groupby(decoding, _length_class):
        group = list(members)
        begin, end = end, end + len(group)
        lengths = np.array([s.start + 1 for s in group])
        longest = int(lengths.max())
        mask = np.arange(longest) < lengths[:, None]
        slots = rows.table[[s.sequence.row for s in group], :longest] * mask
        yield Decodes(begin, end, _tensor(slots, device), _tensor(mask[:, None, None, :], device))


def _length_class(segment: Segment) -> int:
    """Contexts of one class differ by a factor of two at most, or are so short that padding costs less than a group."""
    return max(SHORT, segment.start).bit_length()


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    dtype = torch.bool if array.dtype == bool else torch.long
    return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=dtype)
