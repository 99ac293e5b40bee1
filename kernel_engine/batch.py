"""One step as tensors: a flat run of query tokens, each of which knows its position, its slot and its context.

tokens  | d0 | d1 | d2 | first extend ........ | second extend ... |
          decoding: one token each; attend in     more than one token each; attends
          groups, padded to the group's longest   segment by segment

How much of its context a token sees is the layer's matter: a batch has one view of the contexts for each window that the
model's layers have.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .plan import Segment
from .pool import Rows
from .vision.prompt import Picture

SHORT = 255
"""A context, in tokens, too short to be worth its own pass of attention."""


@dataclass(frozen=True, slots=True)
class Decodes:
    """Tokens `begin..end` of the batch extend one sequence each, all of contexts of about the same length.

    `slots` [sequences, longest] is what they see of their contexts, padded with slot 0; `mask` [sequences, 1, 1, longest]
    is true where there is context.
    """

    begin: int
    end: int
    slots: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Extend:
    """Tokens `begin..end` of the batch continue one sequence; `slots` is all that one of them sees, they included.

    With a `window` each sees only so many tokens up to its own, else all before it.
    """

    begin: int
    end: int
    slots: Tensor
    window: int | None


@dataclass(frozen=True, slots=True)
class View:
    """What the tokens of a batch see of their contexts in layers of one window."""

    decodes: list[Decodes]
    extends: list[Extend]


@dataclass(frozen=True, slots=True)
class Queries:
    """Every token of a batch as a query of its own: it sees the first of `slots` [tokens, longest], as many as its entry in
    `lengths` [tokens] says, both int32."""

    slots: Tensor
    lengths: Tensor


@dataclass(frozen=True, slots=True)
class Seen:
    """Tokens `begin..end` of the batch are the places of `picture` from its place `first` on."""

    begin: int
    end: int
    picture: Picture
    first: int


@dataclass(frozen=True, slots=True)
class Batch:
    """`input_ids` and `out_slots` have one entry a query token, `positions` one on each of the model's axes; `logit_rows` are
    those whose logits are wanted.

    `segments` are in the order of the tokens, and `logit_counts[i]` rows belong to `segments[i]`. What the tokens see is in
    `queries`, or else in `views`, which has an entry for each window of the model's layers. `seen` are the tokens that stand for
    images.
    """

    segments: list[Segment]
    input_ids: Tensor
    positions: Tensor
    out_slots: Tensor
    logit_rows: Tensor
    logit_counts: list[int]
    views: dict[int | None, View]
    queries: Queries | None = None
    seen: list[Seen] = field(default_factory=list)

    @property
    def adapted(self) -> bool:
        """Whether a token of it has an adapter."""
        return any(segment.sequence.adapter for segment in self.segments)


def build_batch(
    segments: list[Segment],
    rows: Rows,
    device: torch.device,
    windows: Iterable[int | None] = (None,),
    query_tokens: int = 0,
    axes: int = 1,
) -> Batch:
    """Lay out `segments`, decoding ones first, shorter contexts before longer, for layers of all `windows`. If there are at
    most `query_tokens` tokens, each is a query of its own. Positions are given on so many `axes`."""
    ordered = sorted(segments, key=lambda s: (s.count > 1, _length_class(s) if s.count == 1 else 0))
    ends = np.cumsum([s.count for s in ordered])
    tokens, positions, out_slots, logit_rows, counts, seen = [], [], [], [], [], []
    for segment, end in zip(ordered, ends.tolist(), strict=True):
        stop = segment.start + segment.count
        tokens += segment.tokens
        positions.append(np.broadcast_to(segment.sequence.positions(segment.start, stop), (axes, segment.count)))
        seen += _seen(segment, end - segment.count)
        out_slots.append(rows.table[segment.sequence.row, segment.start : stop])
        wanted = rows_with_logits(segment)
        counts.append(len(wanted))
        logit_rows += [end - stop + position for position in wanted]
    queries = _queries(ordered, rows, device) if len(tokens) <= query_tokens else None
    return Batch(
        segments=ordered,
        input_ids=torch.tensor(tokens, device=device),
        positions=_tensor(np.concatenate(positions, axis=1), device),
        out_slots=_tensor(np.concatenate(out_slots), device),
        logit_rows=torch.tensor(logit_rows, dtype=torch.long, device=device),
        logit_counts=counts,
        views={} if queries else _views(ordered, rows, device, windows),
        queries=queries,
        seen=seen,
    )


def _seen(segment: Segment, begin: int) -> Iterator[Seen]:
    """The pictures that stand, whole or in part, in a segment whose first token is the batch's token `begin`."""
    start, stop = segment.start, segment.start + segment.count
    for placed in segment.sequence.request.prompt.pictures:
        first, last = max(start, placed.start), min(stop, placed.stop)
        if first < last:
            yield Seen(begin + first - start, begin + last - start, placed.picture, first - placed.start)


def rows_with_logits(segment: Segment) -> list[int]:
    """Positions in `segment` whose logits are needed: those before a prompt token to be scored, and, if it completes, that of
    the last token and of each drafted one."""
    sequence, stop = segment.sequence, segment.start + segment.count
    scored = range(max(segment.start, sequence.unscored - 1), min(stop, sequence.prompt_length - 1))
    return [*scored, *range(segment.known - 1, stop)] if segment.completes else [*scored]


def _queries(ordered: list[Segment], rows: Rows, device: torch.device) -> Queries:
    row = np.repeat([s.sequence.row for s in ordered], [s.count for s in ordered])
    lengths = np.concatenate([np.arange(s.start, s.start + s.count, dtype=np.int32) + 1 for s in ordered])
    slots = rows.table[row, : lengths.max()]
    return Queries(torch.from_numpy(slots).to(device), torch.from_numpy(lengths).to(device))


def _views(
    ordered: list[Segment], rows: Rows, device: torch.device, windows: Iterable[int | None]
) -> dict[int | None, View]:
    """A view for each window; one that is wider than every context is the view of the whole."""
    longest = max(s.start + s.count for s in ordered)
    views: dict[int | None, View] = {}
    for window in windows:
        narrow = window if window is not None and window < longest else None
        if narrow not in views:
            views[narrow] = View(
                list(_decodes(ordered, rows, device, narrow)), list(_extends(ordered, rows, device, narrow))
            )
        views[window] = views[narrow]
    return views


def _decodes(ordered: list[Segment], rows: Rows, device: torch.device, window: int | None) -> Iterator[Decodes]:
    decoding = [s for s in ordered if s.count == 1]
    end = 0
    for _, members in itertools.groupby(decoding, _length_class):
        group = list(members)
        begin, end = end, end + len(group)
        row = [s.sequence.row for s in group]
        lengths = np.array([s.start + 1 for s in group])[:, None]
        longest = int(lengths.max())
        if window is None or longest <= window:
            mask = np.arange(longest) < lengths
            slots = rows.table[row, :longest] * mask
        else:
            columns = np.maximum(lengths - window, 0) + np.arange(window)
            mask = columns < lengths
            slots = rows.table[np.array(row)[:, None], columns] * mask
        yield Decodes(begin, end, _tensor(slots, device), _tensor(mask[:, None, None, :], device))


def _extends(ordered: list[Segment], rows: Rows, device: torch.device, window: int | None) -> Iterator[Extend]:
    end = 0
    for s in ordered:
        end += s.count
        if s.count > 1:
            stop = s.start + s.count
            first = 0 if window is None else max(0, s.start - window + 1)
            slots = _tensor(rows.table[s.sequence.row, first:stop], device)
            yield Extend(end - s.count, end, slots, window if window is not None and window < stop else None)


def _length_class(segment: Segment) -> int:
    """Contexts of one class differ by a factor of two at most, or are so short that padding costs less than a group."""
    return max(SHORT, segment.start).bit_length()


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    dtype = torch.bool if array.dtype == bool else torch.long
    return torch.from_numpy(np.ascontiguousarray(array)).to(device=device, dtype=dtype)
