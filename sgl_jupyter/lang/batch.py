"""Runs many programs at once: their bodies on a few threads, their generations all on the background loop."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal

from sgl_jupyter.lang.events import INTERRUPTIBLE, EventLog, Failed, Forked, Usage
from sgl_jupyter.lang.executor import Executor
from sgl_jupyter.lang.state import ProgramState


class BatchInterrupted(KeyboardInterrupt):
    """A batch was interrupted. `states` are all of its states, in the order of its items.

    Those that had finished are whole; the others are stopped, with what they had come to. In a notebook the exception is
    `sys.last_value`.
    """

    def __init__(self, states: list[ProgramState]) -> None:
        self.states = states
        finished = sum(state.finished for state in states)
        super().__init__(
            f"{finished} of {len(states)} runs had finished; they and the others are in sys.last_value.states"
        )


@dataclass(frozen=True)
class Job:
    """One program of the batch, and its body, which tells its errors to the state alone."""

    executor: Executor
    state: ProgramState
    body: Callable[[], None]


def run_jobs(
    jobs: Sequence[Job],
    num_threads: int | Literal["auto"],
    progress_bar: bool,
    raising: bool,
    in_order: bool = True,
) -> Iterator[ProgramState]:
    """Run the jobs, and yield their states as they end, in the order of the jobs or in that in which they end.

    If the iteration is left early, the rest is stopped.
    """
    limited = num_threads != "auto"
    threads = num_threads if limited else min(96, 16 * (os.cpu_count() or 1))
    pool = ThreadPoolExecutor(max(1, min(threads, len(jobs))), thread_name_prefix="sgl-jupyter-batch")
    ended: SimpleQueue[Job] = SimpleQueue()  # and not as_completed, which an interrupt can leave with locks held
    yielded = 0
    try:
        for job in jobs:
            job.executor.closed.add_done_callback(lambda _, job=job: ended.put(job))
            pool.submit(contextvars.copy_context().run, _run, job, limited)
        with _Progress(len(jobs), progress_bar) as progress:
            for _ in jobs:
                job = _next(ended)
                progress.count(job.state.log)
                outcome = job.executor.closed.result()
                if raising and isinstance(outcome, Failed):
                    raise outcome.error
                if not in_order:
                    yield job.state
                while in_order and yielded < len(jobs) and jobs[yielded].executor.closed.done():
                    yield jobs[yielded].state
                    yielded += 1
    finally:
        for job in jobs:
            job.state.cancel()
        pool.shutdown(wait=False, cancel_futures=True)


def list_jobs(jobs: Sequence[Job], states: Iterator[ProgramState]) -> list[ProgramState]:
    """All that `run_jobs` yields. Raises BatchInterrupted, which has all states, on an interrupt."""
    try:
        return list(states)
    except KeyboardInterrupt as interrupt:
        raise BatchInterrupted([job.state for job in jobs]) from interrupt


def _next(ended: SimpleQueue[Job]) -> Job:
    while True:
        with suppress(Empty):
            return ended.get(timeout=INTERRUPTIBLE)


def _run(job: Job, to_its_end: bool) -> None:
    """Without a limit on runs at a time, a thread is free as soon as a body has returned."""
    job.body()
    if to_its_end:
        job.executor.closed.result()


class _Progress:
    """A bar on stderr: how many runs are done, and how many tokens a second they generated."""

    def __init__(self, total: int, shown: bool) -> None:
        from tqdm import tqdm  # only batches need it

        self._bar: Any = tqdm(total=total, disable=not shown)
        self._tokens = 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def count(self, log: EventLog) -> None:
        """One more run is done."""
        self._tokens += _generated(log)
        seconds = self._bar.format_dict["elapsed"] if self._tokens and not self._bar.disable else 0
        if seconds:
            self._bar.set_postfix_str(f"{self._tokens / seconds:.0f} token/s", refresh=False)
        self._bar.update()


def _generated(log: EventLog) -> int:
    """The tokens that a run and its forks generated."""
    own = sum(event.completion_tokens for event in log.events if isinstance(event, Usage))
    return own + sum(_generated(child) for event in log.events if isinstance(event, Forked) for child in event.children)
