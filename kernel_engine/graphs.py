"""CUDA graphs: small steps, recorded once and replayed, which spares launching a thousand kernels one by one.

A graph computes a fixed number of tokens, each a query of its own, on tensors that stay where they are. A step is copied into
them and padded to the next recorded size. Invariant: padding reads and writes slot 0 of the pool, which belongs to no sequence.
"""

from __future__ import annotations

import bisect
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .batch import Batch, Queries
from .model import Model
from .pool import KVCache

logger = logging.getLogger(__name__)
Step = Callable[[], object]
WARM_UPS = 2
"""Runs before the recording, in which kernels are compiled and libraries set up."""


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """Numbers of tokens, ascending, that are recorded; with `padding`, smaller steps use the next larger one."""

    sizes: tuple[int, ...] = ()
    padding: bool = True


class Graphs:
    """The steps of `model` on `cache`, replayed where a graph fits and computed kernel by kernel where none does.

    `context` is the longest context of a token.
    """

    def __init__(self, model: Model, cache: KVCache, context: int, settings: GraphSettings):
        self._model, self._cache, self._padding = model, cache, settings.padding
        self._sizes = list(settings.sizes)
        if self._sizes:
            self._make_room(self._sizes[-1], context)
            self._record()

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """Run one step; returns logits `[len(batch.logit_rows), vocabulary]` in fp32."""
        size = self._size_for(batch)
        if size is None:
            return self._model.forward(batch, self._cache)
        self._fill(batch, size)
        self._replays[size]()
        return self._logits[batch.logit_rows]

    def _size_for(self, batch: Batch) -> int | None:
        """The recorded size that takes `batch`, if one does."""
        tokens = len(batch.input_ids)
        if batch.queries is None or batch.adapted or batch.seen or not self._sizes or tokens > self._sizes[-1]:
            return None
        size = self._sizes[bisect.bisect_left(self._sizes, tokens)]
        return size if size == tokens or self._padding else None

    def _make_room(self, size: int, context: int) -> None:
        model = self._model
        with torch.device(model.device):
            self._input_ids, self._out_slots = torch.zeros((2, size), dtype=torch.long)
            self._positions = torch.zeros((model.axes, size), dtype=torch.long)
            self._slots = torch.zeros((size, context), dtype=torch.int32)
            self._lengths = torch.ones(size, dtype=torch.int32)
            self._logits = torch.zeros((size, model.shape.vocab), dtype=torch.float32)

    def _record(self) -> None:
        """Record all sizes; none is kept if the model waits for the GPU within a step, as some mixtures of experts do."""
        logger.info("Capture cuda graph begin. sizes=%s", self._sizes)
        began = time.monotonic()
        try:
            self._replays = record({size: self._step(size) for size in reversed(self._sizes)})
        except RuntimeError as error:
            logger.warning("no CUDA graphs: the steps of this model cannot be recorded: %s", error)
            self._sizes = []
        logger.info("Capture cuda graph end. seconds=%.1f", time.monotonic() - began)

    def _step(self, size: int) -> Step:
        batch = Batch(
            segments=[],
            input_ids=self._input_ids[:size],
            positions=self._positions[:, :size],
            out_slots=self._out_slots[:size],
            logit_rows=torch.arange(size, device=self._model.device),
            logit_counts=[],
            views={},
            queries=Queries(self._slots[:size], self._lengths[:size]),
        )
        return lambda: self._logits[:size].copy_(self._model.forward(batch, self._cache))

    def _fill(self, batch: Batch, size: int) -> None:
        """Copy a step into the tensors that the graphs read, and padding behind it."""
        assert batch.queries is not None
        tokens, longest = batch.queries.slots.shape
        self._input_ids[:tokens], self._input_ids[tokens:size] = batch.input_ids, 0
        self._positions[:, :tokens], self._positions[:, tokens:size] = batch.positions, 0
        self._out_slots[:tokens], self._out_slots[tokens:size] = batch.out_slots, 0
        self._lengths[:tokens], self._lengths[tokens:size] = batch.queries.lengths, 1
        self._slots[:tokens, :longest], self._slots[tokens:size, 0] = batch.queries.slots, 0


def record(steps: dict[int, Step]) -> dict[int, Step]:
    """Record what each of `steps` launches on the GPU; the results repeat it. Their memory is shared: one runs at a time, and
    what follows the largest fits into what it took."""
    pool = torch.cuda.graph_pool_handle()
    replays: dict[int, Step] = {}
    for size, step in steps.items():
        _warm_up(step)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            step()
        replays[size] = graph.replay
    return replays


def _warm_up(step: Step) -> None:
    """Run `step` on a stream of its own, as recording asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            step()
    torch.cuda.current_stream().wait_stream(stream)
