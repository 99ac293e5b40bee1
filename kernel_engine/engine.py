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
from dataclasses import dataclass, field, replace

import torch

from .batch import build_batch
from .collect import Collector
from .errors import RequestError
from .grammar import GrammarCompiler
from .graphs import Graphs, GraphSettings
from .matchers import Matcher
from .model import Model
from .plan import Plan
from .request import Output, Request, Sequence, aborted, refusal
from .schedule import Policy, Scheduler
from .speculate import Drafter
from .step_log import LogSettings, StepLog
from .text import TextStream
from .threads import compute_alone, compute_with

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Sizes of the engine, resolved. `slots` is the KV cache in tokens, `rows` the requests computed together, on a CPU by
    `threads`, as many as its maker's by default. With `auto_truncate`, prompts that are too long lose their end.
    `grammar_backend` is xgrammar, llguidance, or none, which refuses constraints.
    """

    slots: int
    rows: int
    policy: Policy
    seed: int
    threads: int = field(default_factory=torch.get_num_threads)
    graphs: GraphSettings = field(default_factory=GraphSettings)
    log: LogSettings = field(default_factory=LogSettings)
    auto_truncate: bool = False
    grammar_backend: str = "xgrammar"
    json_whitespace: str | None = None


class Engine:
    """Continuous batching of requests on one model. `submit`, `abort` and `flush_cache` may be called from any thread."""

    def __init__(self, model: Model, settings: EngineSettings, deliver: Callable[[list[Output]], None]):
        self.model, self.settings = model, settings
        self.context = min(model.shape.context, settings.slots)
        self.scheduler = Scheduler(settings.slots, settings.rows, self.context, settings.policy)
        self.log = StepLog(settings.log)
        self.failure: BaseException | None = None
        self.last_progress = time.monotonic()
        self._graphs = Graphs(model, model.new_cache(settings.slots), self.context, settings.graphs)
        self._grammars = GrammarCompiler(
            model.tokenizer,
            model.shape.vocab,
            model.stop_tokens,
            backend=settings.grammar_backend,
            json_whitespace=settings.json_whitespace,
        )
        self._collector = Collector(model)
        self._deliver = deliver
        self._random = random.Random(settings.seed)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._compiling: dict[str, Request] = {}
        self._closing = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # -- from any thread ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()
        self._started.wait()
        compute_alone()

    def close(self) -> None:
        """End the thread after the step under way; requests that are not finished get no more outputs."""
        self._inbox.put(self._stop)
        self._grammars.close()
        self._collector.close()
        if self._thread.is_alive():
            self._thread.join()

    def wait_until_loaded(self) -> None:
        """Wait until requests with constraints cost others nothing; before, the first ones would stop everything for seconds."""
        self._grammars.wait_until_loaded()

    def check(self, request: Request) -> None:
        """Raise `RequestError` if `request` can never be served."""
        request = self._fitted(request)
        length = len(request.input_ids)
        if length == 0:
            raise RequestError("input_ids cannot be empty.")
        if length >= self.context:
            raise RequestError(
                f"The input ({length} tokens) is longer than the model's context length ({self.context} tokens). "
                "Use a shorter input or enable --allow-auto-truncate."
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
        if (constraint := request.params.constraint) and self.settings.grammar_backend == "none":
            raise RequestError(f"{constraint.kind} is switched off: the server runs with --grammar-backend none.")
        self.model.adapters.number(request.lora_path)

    def submit(self, request: Request) -> None:
        """Queue a checked request; its outputs are delivered, the last with a finish reason, whatever happens."""
        self._inbox.put(lambda: self._intake(self._fitted(request)))

    def _fitted(self, request: Request) -> Request:
        """`request`, without the end of a prompt that is too long if that may be cut."""
        longest = self.context - 1
        if not self.settings.auto_truncate or len(request.input_ids) <= longest:
            return request
        return replace(request, prompt=request.prompt.cut(longest))

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
        compute_with(self.settings.threads)
        self._started.set()
        try:
            while not self._closing:
                self._drain()
                if self.busy:
                    self.step()
                self.last_progress = time.monotonic()
        except BaseException as error:
            logger.exception("the engine failed")
            self.failure = error
            reason = aborted(f"the engine failed: {error!r}", 500)
            sequences = [*self.scheduler.running, *self.scheduler.waiting]
            requests = [*(s.request for s in sequences), *self._compiling.values()]
            self._deliver([refusal(request, reason) for request in requests])

    def _drain(self) -> None:
        if not self.busy:
            self.log.idle()
            command = self._inbox.get()
            self.last_progress = time.monotonic()  # being idle is no hang
            command()
        while not self._closing and not self._inbox.empty():
            self._inbox.get()()

    def step(self) -> None:
        """Compute one batch and deliver what it gave."""
        began = time.perf_counter()
        plan = self.scheduler.plan()
        model = self.model
        batch = build_batch(
            plan.segments, self.scheduler.rows, model.device, model.windows, model.query_tokens, model.axes
        )
        masks = self._collector.fill_masks(batch)
        planned = time.perf_counter()
        try:
            logits = self._graphs.forward(batch)
            computed = time.perf_counter()
            generated = self._collector.collect(batch, logits, masks)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            self._out_of_memory(plan, str(error))
            return
        for segment in plan.segments:
            self.scheduler.computed(segment)
        self.log.step(plan, self.scheduler, generated)
        self._deliver_from([segment.sequence for segment in batch.segments])
        self.log.spent(plan=planned - began, forward=computed - planned, collect=time.perf_counter() - computed)

    def _out_of_memory(self, plan: Plan, message: str) -> None:
        """Let a step's sequences try again with fewer prompt tokens a step, or fail if that is not what takes the memory."""
        sequences = [segment.sequence for segment in plan.segments]
        if self.scheduler.out_of_memory(plan):
            logger.warning("out of memory; at most %d prompt tokens a step from now on", self.scheduler.policy.chunk)
        else:
            logger.error("out of memory: %s", message)
            for sequence in sequences:
                sequence.finish_reason = sequence.finish_reason or aborted(f"out of memory in a step: {message}", 500)
        self._deliver_from(sequences)

    def _deliver_from(self, sequences: list[Sequence]) -> None:
        """Deliver what there is to deliver of `sequences` now; a finished one leaves the scheduler."""
        for sequence in sequences:
            if sequence.finish_reason is not None:
                self.scheduler.finish(sequence)
                self.log.finished(sequence)
        if outputs := [sequence.take_output() for sequence in sequences if sequence.has_output]:
            self._deliver(outputs)

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
            self._deliver([refusal(request, aborted(str(error), status))])
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
            adapter=self.model.adapters.number(request.lora_path),
            drafter=Drafter(self.settings.policy.drafted) if self.settings.policy.drafted else None,
        )
        self.scheduler.add(sequence)
        self._collector.begin(sequence)
        if sequence.finish_reason:
            self._deliver_from([sequence])

    def _abort(self, chosen: Callable[[str], bool]) -> None:
        for rid in [rid for rid in self._compiling if chosen(rid)]:
            self._deliver([refusal(self._compiling.pop(rid), aborted("the request was aborted"))])
        sequences = self.scheduler.running + list(self.scheduler.waiting)
        for sequence in [s for s in sequences if chosen(s.request.rid)]:
            sequence.finish_reason = aborted("the request was aborted")
            self._deliver_from([sequence])

    def _flush(self) -> bool:
        self._grammars.clear()
        return self.scheduler.flush()

    def _stop(self) -> None:
        self._closing = True


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether there was too little memory; on a CPU torch says so only in words."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
