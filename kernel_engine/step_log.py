"""What the engine did, in numbers: counters, latencies, where a step's time goes; and its log lines, in SGLang's words."""

from __future__ import annotations

import bisect
import logging
import time
from dataclasses import dataclass, field

from .plan import Plan
from .request import Sequence
from .schedule import Scheduler

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Histogram:
    """Counts of observations up to each of `bounds` and beyond the last."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value


FIRST_TOKEN = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0)
BETWEEN_TOKENS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0)
WHOLE_REQUEST = (0.1, 0.2, 0.4, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0, 800.0)
LENGTHS = tuple(float(2**n) for n in range(4, 21))


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is written down. `interval` is the number of decoding steps per log line, `times` asks for a line on each
    request's time, `lengths` for histograms of requests' lengths in tokens; the others are histograms' bounds in seconds.
    """

    interval: int = 40
    times: bool = False
    lengths: bool = False
    first_token: tuple[float, ...] = FIRST_TOKEN
    between_tokens: tuple[float, ...] = BETWEEN_TOKENS
    whole_request: tuple[float, ...] = WHOLE_REQUEST


@dataclass(slots=True)
class StepLog:
    """Written by the engine's thread, read by others.

    The throughput is that of the time spent decoding since the last line; idle time does not count.
    """

    settings: LogSettings
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    requests: int = 0
    aborted: int = 0
    retractions: int = 0
    turns: int = 0
    drafted: int = 0
    accepted: int = 0
    """Of requests that speculate, once they have finished: forward passes that gave tokens, and what became of drafts."""
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"plan": 0.0, "forward": 0.0, "collect": 0.0})
    first_token: Histogram = field(init=False)
    between_tokens: Histogram = field(init=False)
    whole_request: Histogram = field(init=False)
    prompt_lengths: Histogram = field(default_factory=lambda: Histogram(LENGTHS))
    output_lengths: Histogram = field(default_factory=lambda: Histogram(LENGTHS))
    last_throughput: float = 0.0
    _decodes: int = 0
    _tokens: int = 0
    _since: float | None = None

    def __post_init__(self) -> None:
        self.first_token = Histogram(self.settings.first_token)
        self.between_tokens = Histogram(self.settings.between_tokens)
        self.whole_request = Histogram(self.settings.whole_request)

    def step(self, plan: Plan, scheduler: Scheduler, generated: int) -> None:
        """Note a step that gave `generated` tokens."""
        self.steps += 1
        self.generation_tokens += generated
        self.prompt_tokens += plan.prefill_tokens
        self.cached_tokens += plan.cached
        usage = scheduler.used / scheduler.pool.size
        queued = len(scheduler.waiting)
        if plan.prefill_tokens:
            logger.info(
                "Prefill batch. #new-seq: %d, #new-token: %d, #cached-token: %d, token usage: %.2f, "
                "#running-req: %d, #queue-req: %d",
                len(plan.admitted), plan.prefill_tokens, plan.cached, usage,
                len(scheduler.running) - len(plan.admitted), queued,
            )  # fmt: skip
            return
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        self._decodes += 1
        self._tokens += generated
        if self._decodes >= self.settings.interval:
            self.last_throughput = self._tokens / max(now - self._since, 1e-9)
            self._decodes, self._tokens, self._since = 0, 0, now
            logger.info(
                "Decode batch. #running-req: %d, #token: %d, token usage: %.2f, cuda graph: False, "
                "gen throughput (token/s): %.2f, #queue-req: %d",
                len(scheduler.running), scheduler.used, usage, self.last_throughput, queued,
            )  # fmt: skip

    def spent(self, **seconds: float) -> None:
        """Add a step's time, by phase."""
        for phase, duration in seconds.items():
            self.seconds[phase] += duration

    def finished(self, sequence: Sequence) -> None:
        now = time.monotonic()
        self.requests += 1
        self.retractions += sequence.retractions
        if drafter := sequence.drafter:
            self.turns += drafter.steps
            self.drafted += drafter.drafted
            self.accepted += drafter.accepted
        self.aborted += (sequence.finish_reason or {}).get("type") == "abort"
        self.whole_request.observe(now - sequence.arrived)
        self.prompt_lengths.observe(sequence.prompt_length)
        self.output_lengths.observe(sequence.output_length)
        if sequence.first_token_at is not None:
            self.first_token.observe(sequence.first_token_at - sequence.arrived)
            if sequence.output_length > 1:
                self.between_tokens.observe((now - sequence.first_token_at) / (sequence.output_length - 1))
        if self.settings.times:
            self._log_times(sequence, now)

    def _log_times(self, sequence: Sequence, now: float) -> None:
        admitted = now if sequence.admitted_at is None else sequence.admitted_at
        first = now if sequence.first_token_at is None else sequence.first_token_at
        logger.info(
            "Req Time Stats(rid=%s, input len=%d, cached len=%d, output len=%d): queue_duration=%.1fms, "
            "prefill_duration=%.1fms, decode_duration=%.1fms",
            sequence.request.rid, sequence.prompt_length, sequence.cached_tokens or 0, sequence.output_length,
            (admitted - sequence.arrived) * 1e3, (max(first, admitted) - admitted) * 1e3, (now - max(first, admitted)) * 1e3,
        )  # fmt: skip

    def idle(self) -> None:
        """Nothing runs: the clock of the throughput stops."""
        self._since, self._decodes, self._tokens = None, 0, 0
