"""What the engine's log says of its steps, in SGLang's words, and the counters behind it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from .request import Sequence
from .schedule import Plan, Scheduler

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class StepLog:
    """Writes a line for each step that admits requests, and one each `interval` steps that only decode.

    The throughput is that of the time spent decoding since the last line; idle time does not count.
    """

    interval: int
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    requests: int = 0
    last_throughput: float = 0.0
    _steps: int = 0
    _tokens: int = 0
    _since: float | None = None

    def step(self, plan: Plan, scheduler: Scheduler) -> None:
        decoded = sum(s.completes for s in plan.segments)
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
        self._steps += 1
        self._tokens += decoded
        if self._steps >= self.interval:
            self.last_throughput = self._tokens / max(now - self._since, 1e-9)
            self._steps, self._tokens, self._since = 0, 0, now
            logger.info(
                "Decode batch. #running-req: %d, #token: %d, token usage: %.2f, cuda graph: False, "
                "gen throughput (token/s): %.2f, #queue-req: %d",
                len(scheduler.running), scheduler.used, usage, self.last_throughput, queued,
            )  # fmt: skip

    def finished(self, sequence: Sequence) -> None:
        self.requests += 1

    def idle(self) -> None:
        """Nothing runs: the clock of the throughput stops."""
        self._since, self._steps, self._tokens = None, 0, 0
