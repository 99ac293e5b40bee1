"""Runs many programs at once: their bodies on a few threads, their generations all on the background loop."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Literal

from sgl_jupyter.lang.events import Failed
from sgl_jupyter.lang.executor import Executor
from sgl_jupyter.lang.state import ProgramState


@dataclass(frozen=True)
class Job:
    """One program of the batch, and its body, which tells its errors to the state alone."""

    executor: Executor
    state: ProgramState
    body: Callable[[], None]


def run_jobs(
    jobs: Sequence[Job], num_threads: int | Literal["auto"], progress_bar: bool, raising: bool
) -> Iterator[ProgramState]:
    """Run the jobs, and yield their states in order as they end. If the iteration is left early, the rest is stopped."""
    from tqdm import tqdm  # only batches need it

    limited = num_threads != "auto"
    threads = num_threads if limited else min(96, 16 * (os.cpu_count() or 1))
    pool = ThreadPoolExecutor(max(1, min(threads, len(jobs))), thread_name_prefix="sgl-jupyter-batch")
    yielded = 0
    try:
        for job in jobs:
            pool.submit(contextvars.copy_context().run, _run, job, limited)
        with tqdm(total=len(jobs), disable=not progress_bar) as bar:
            for closed in as_completed([job.executor.closed for job in jobs]):
                bar.update()
                outcome = closed.result()
                if raising and isinstance(outcome, Failed):
                    raise outcome.error
                while yielded < len(jobs) and jobs[yielded].executor.closed.done():
                    yield jobs[yielded].state
                    yielded += 1
    finally:
        for job in jobs:
            job.state.cancel()
        pool.shutdown(wait=False, cancel_futures=True)


def _run(job: Job, to_its_end: bool) -> None:
    """Without a limit on runs at a time, a thread is free as soon as a body has returned."""
    job.body()
    if to_its_end:
        job.executor.closed.result()
