"""What the engine did, in numbers: counters, latencies, where a step's time goes; and its log lines, in SGLang's words."""

from __future__ import annotations

import bisect
import logging
import time
from dataclasses import dataclass, field

from .request import Sequence
from .schedule import Plan, Scheduler

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Histogram:
    """Counts of observations, in seconds, up to each of `bounds` and beyond the last."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


FIRST_TOKEN = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0)
BETWEEN_TOKENS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 8.0)
WHOLE_REQUEST = (0.1, 0.2, 0.4, 0.8, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0, 800.0)


@dataclass(slots=True)
class StepLog:
    """Written by the engine's thread, read by others. `interval` is the number of decoding steps per log line.

    The throughput is that of the time spent decoding since the last line; idle time does not count.
    """

    interval: int
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    requests: int = 0
    aborted: int = 0
    retractions: int = 0
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"plan": 0.0, "forward": 0.0, "collect": 0.0})
    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN))
    between_tokens: Histogram = field(default_factory=lambda: Histogram(BETWEEN_TOKENS))
    whole_request: Histogram = field(default_factory=lambda: Histogram(WHOLE_REQUEST))
    last_throughput: float = 0.0
    _decodes: int = 0
    _tokens: int = 0
    _since: float | None = None

    def step(self, plan: Plan, scheduler: Scheduler) -> None:
        decoded = sum(s.completes for s in plan.segments)
        self.steps += 1
        self.generation_tokens += decoded
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
        self._tokens += decoded
        if self._decodes >= self.interval:
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
        self.aborted += (sequence.finish_reason or {}).get("type") == "abort"
        self.whole_request.observe(now - sequence.arrived)
        if sequence.first_token_at is not None:
            self.first_token.observe(sequence.first_token_at - sequence.arrived)
            if sequence.output_length > 1:
                self.between_tokens.observe((now - sequence.first_token_at) / (sequence.output_length - 1))

    def idle(self) -> None:
        """Nothing runs: the clock of the throughput stops."""
        self._since, self._decodes, self._tokens = None, 0, 0
