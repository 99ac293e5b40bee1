"""The engine: one thread that owns every tensor, the scheduler and the matchers, and runs

    drain the inbox -> plan -> forward -> collect -> deliver

until it is closed. It knows nothing of HTTP: requests come in through `submit`, outputs go out through one callable that is
called on the engine's thread, once a step that gave outputs, and once more after the engine failed.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from .batch import build_batch
from .collect import Collector
from .errors import RequestError
from .grammar import GrammarCompiler, Matcher
from .model import Model
from .request import Output, Request, Sequence, aborted
from .schedule import Policy, Scheduler
from .step_log import StepLog
from .text import TextStream

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Sizes of the engine, resolved. `slots` is the KV cache in tokens, `rows` the requests computed together."""

    slots: int
    rows: int
    policy: Policy
    seed: int
    log_interval: int = 40


class Engine:
    """Continuous batching of requests on one model. `submit`, `abort` and `flush_cache` may be called from any thread."""

    def __init__(self, model: Model, settings: EngineSettings, deliver: Callable[[list[Output]], None]):
        self.model, self.settings = model, settings
        self.context = min(model.shape.context, settings.slots)
        self.scheduler = Scheduler(settings.slots, settings.rows, self.context, settings.policy)
        self.log = StepLog(settings.log_interval)
        self.failure: BaseException | None = None
        self.last_progress = time.monotonic()
        self._cache = model.new_cache(settings.slots)
        self._grammars = GrammarCompiler(model.tokenizer, model.shape.vocab, model.stop_tokens)
        self._collector = Collector(model)
        self._deliver = deliver
        self._random = random.Random(settings.seed)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._compiling: dict[str, Request] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # -- from any thread ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after the step under way; requests that are not finished get no more outputs."""
        self._inbox.put(self._stop)
        self._grammars.close()
        self._collector.close()
        if self._thread.is_alive():
            self._thread.join()

    def check(self, request: Request) -> None:
        """Raise `RequestError` if `request` can never be served."""
        length = len(request.input_ids)
        if length == 0:
            raise RequestError("input_ids cannot be empty.")
        if length >= self.context:
            raise RequestError(
                f"The input ({length} tokens) is longer than the model's context length ({self.context} tokens)."
            )
        vocabulary = self.model.shape.vocab
        ids = (
            *request.input_ids,
            *request.params.logit_bias,
            *(request.logprobs.token_ids if request.logprobs else ()),
        )
        if not all(0 <= token < vocabulary for token in ids):
            raise RequestError(f"token ids must be in [0, {vocabulary}), the model's vocabulary.")
        if request.logprobs and request.logprobs.start >= length:
            raise RequestError(
                f"logprob_start_len must be below the prompt's length {length}, got {request.logprobs.start}."
            )

    def submit(self, request: Request) -> None:
        """Queue a checked request; its outputs are delivered, the last with a finish reason, whatever happens."""
        self._inbox.put(lambda: self._intake(request))

    def abort(self, rid: str, *, prefix: bool = False) -> None:
        """End the request `rid`, or all whose id begins so, with finish reason `abort`. Unknown ids are ignored."""
        self._inbox.put(lambda: self._abort(lambda other: other.startswith(rid) if prefix else other == rid))

    def flush_cache(self) -> Future[bool]:
        """Empty the prefix cache and forget compiled grammars; the result is False if requests were under way."""
        done: Future[bool] = Future()
        self._inbox.put(lambda: done.set_result(self._flush()))
        return done

    @property
    def busy(self) -> bool:
        return bool(self.scheduler.running or self.scheduler.waiting)

    # -- the engine's thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing:
                self._drain()
                if self.busy:
                    self.step()
                self.last_progress = time.monotonic()
        except BaseException as error:
            logger.exception("the engine failed")
            self.failure = error
            message = f"the engine failed: {error!r}"
            self._fail(self.scheduler.running + list(self.scheduler.waiting), message)
            self._deliver([_refusal(request, aborted(message, 500)) for request in self._compiling.values()])

    def _drain(self) -> None:
        if not self.busy:
            self.log.idle()
            self._inbox.get()()
        while not self._closing and not self._inbox.empty():
            self._inbox.get()()

    def step(self) -> None:
        """Compute one batch and deliver what it gave."""
        began = time.perf_counter()
        plan = self.scheduler.plan()
        batch = build_batch(plan.segments, self.scheduler.rows, self.model.device)
        masks = self._collector.fill_masks(batch)
        planned = time.perf_counter()
        try:
            logits = self.model.forward(batch, self._cache)
        except torch.OutOfMemoryError as error:
            self._fail([s.sequence for s in plan.segments], f"out of memory in a step: {error}")
            return
        computed = time.perf_counter()
        for segment in plan.segments:
            self.scheduler.computed(segment)
        self.log.step(plan, self.scheduler)
        self._collector.collect(batch, logits, masks)
        outputs = [o for s in batch.segments if (o := self._output(s.sequence)) is not None]
        if outputs:
            self._deliver(outputs)
        self.log.spent(plan=planned - began, forward=computed - planned, collect=time.perf_counter() - computed)

    def _output(self, sequence: Sequence) -> Output | None:
        """What to deliver of a sequence now, if anything; a finished one leaves the scheduler."""
        finished = sequence.finish_reason is not None
        new = sequence.output_length - sequence.emitted
        interval = sequence.request.stream_interval
        if not finished and (interval is None or new < interval):
            return None
        if finished:
            self.scheduler.finish(sequence)
            self.log.finished(sequence)
        output = Output(
            rid=sequence.request.rid,
            text=sequence.text.take(final=finished),
            token_ids=sequence.tokens[sequence.prompt_length + sequence.emitted :],
            prompt_tokens=sequence.prompt_length,
            completion_tokens=sequence.output_length,
            cached_tokens=min(sequence.cached_tokens or 0, sequence.prompt_length - 1),
            finish_reason=sequence.finish_reason,
            input_logprobs=[] if sequence.emitted else sequence.input_logprobs,
            output_logprobs=sequence.output_logprobs[sequence.emitted :],
            retractions=sequence.retractions,
        )
        sequence.emitted = sequence.output_length
        return output

    # -- commands -------------------------------------------------------------------------------------------------------

    def _intake(self, request: Request) -> None:
        constraint = request.params.constraint
        if constraint is None:
            self._add(request, None)
            return
        self._compiling[request.rid] = request
        compiled = self._grammars.compile(constraint)
        compiled.add_done_callback(lambda done: self._inbox.put(lambda: self._compiled(request, done)))

    def _compiled(self, request: Request, compiled: Future) -> None:
        if self._compiling.pop(request.rid, None) is None:
            return
        if error := compiled.exception():
            status = error.status if isinstance(error, RequestError) else 500
            self._deliver([_refusal(request, aborted(str(error), status))])
        else:
            self._add(request, compiled.result()())

    def _add(self, request: Request, matcher: Matcher | None) -> None:
        params = request.params
        room = self.context - len(request.input_ids)
        seed = params.sampling_seed if params.sampling_seed is not None else self._random.getrandbits(63)
        sequence = Sequence(
            request,
            max_new_tokens=room if params.max_new_tokens is None else min(params.max_new_tokens, room),
            seed=seed,
            text=TextStream(self.model.tokenizer.backend_tokenizer, params, request.input_ids),
            matcher=matcher,
        )
        self.scheduler.add(sequence)
        self._collector.begin(sequence)
        if sequence.finish_reason:
            self._deliver([o for o in [self._output(sequence)] if o])

    def _abort(self, chosen: Callable[[str], bool]) -> None:
        for rid in [rid for rid in self._compiling if chosen(rid)]:
            self._deliver([_refusal(self._compiling.pop(rid), aborted("the request was aborted"))])
        sequences = self.scheduler.running + list(self.scheduler.waiting)
        for sequence in [s for s in sequences if chosen(s.request.rid)]:
            sequence.finish_reason = aborted("the request was aborted")
            self._deliver([o for o in [self._output(sequence)] if o])

    def _fail(self, sequences: list[Sequence], message: str) -> None:
        for sequence in sequences:
            sequence.finish_reason = aborted(message, 500)
            self._deliver([o for o in [self._output(sequence)] if o])

    def _flush(self) -> bool:
        self._grammars.clear()
        return self.scheduler.flush()

    def _stop(self) -> None:
        self._closing = True


def _refusal(request: Request, reason: dict) -> Output:
    """The only output of a request that never ran."""
    return Output(request.rid, "", [], len(request.input_ids), 0, 0, finish_reason=reason)
