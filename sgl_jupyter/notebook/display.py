"""Showing a run while it goes on: one output for one run, where someone watches; one final output where nobody does.

A run is followed by a thread of its own, because the main thread is busy with the program, which blocks wherever it reads a
variable. The thread inherits the context of the cell, in which ipykernel keeps the cell's identity, so its updates reach the
output of that cell whatever runs next.
"""

from __future__ import annotations

import contextvars
import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from sgl_jupyter.lang.events import EventLog
from sgl_jupyter.notebook.progress import EngineWatch
from sgl_jupyter.notebook.run import Follower, Fork, Run, log_tree
from sgl_jupyter.notebook.text import ansi, plain, shown_blocks
from sgl_jupyter.notebook.views import mimebundle

MIN_PAUSE = 0.08
"""Seconds between two updates, so that a fast model does not flood the front end."""
LARGE_PAUSE = 0.5
LARGE = 64 * 1024
"""Characters of text, beyond which updates come every `LARGE_PAUSE` seconds: each carries the whole output."""
MAX_SENDING_SHARE = 0.25
"""Of the time, how much may go into sending updates."""
TICK = 0.05
"""Seconds between two looks at the forks of a run that says nothing itself."""


VIEWS = ("auto", "live", "static", "text", "none")
"""The ways to show a run."""


class Sink(Protocol):
    """Where a run is shown."""

    outlives_cell: bool
    """Whether what is shown can change after the cell has ended."""

    def update(self, run: Run) -> None:
        """Show the run as it is now. Called from the following thread."""
        ...

    def finish(self, run: Run) -> None:
        """Show what is to stay."""
        ...


class FinalOutput:
    """One output at the end. For runs that nobody watches, as updates of an output fail nbval and are lost in exports."""

    outlives_cell = False

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars

    def update(self, run: Run) -> None:
        pass

    def finish(self, run: Run) -> None:
        from IPython.display import display

        if shown_blocks(run):
            data, metadata = mimebundle(run, self._max_chars)
            display(data, metadata=metadata, raw=True)


class LiveOutput(FinalOutput):
    """One output that is updated in place."""

    outlives_cell = True

    def __init__(self, max_chars: int) -> None:
        super().__init__(max_chars)
        self._handle: Any = None

    def update(self, run: Run) -> None:
        from IPython.display import display

        if not shown_blocks(run):
            return
        data, metadata = mimebundle(run, self._max_chars)
        if self._handle is None:
            self._handle = display(data, metadata=metadata, raw=True, display_id=True)
        else:
            self._handle.update(data, metadata=metadata, raw=True)

    finish = update


class Terminal:
    """Text that is printed as it comes."""

    outlives_cell = False

    def __init__(self) -> None:
        self._render = ansi if sys.stdout.isatty() else plain
        self._printed = ""

    def update(self, run: Run) -> None:
        text = self._render(_settled(run))
        if text.startswith(self._printed):
            self._print(text[len(self._printed) :])
            self._printed = text

    def finish(self, run: Run) -> None:
        text = self._render(run)
        if not text.startswith(self._printed):  # forks went on after they were printed
            self._print("\n\n")
            self._printed = ""
        self._print(text[len(self._printed) :])
        if text:
            self._print("\x1b[0m\n" if self._render is ansi else "\n")

    def _print(self, text: str) -> None:
        print(text, end="", flush=True)


class Nowhere:
    """For runs that are not to be shown."""

    outlives_cell = True

    def update(self, run: Run) -> None:
        pass

    finish = update


def sink_for(shell: Any, max_chars: int, view: str = "auto") -> Sink:
    """The place for a run of this shell as `view`, one of `VIEWS`, says.

    "auto" is live where a user watches, and static where a tool runs the notebook. A terminal has nothing but text.
    """
    kernel = getattr(shell, "kernel", None)
    if view == "none":
        return Nowhere()
    if view == "text" or kernel is None:
        return Terminal()
    if view == "live" or (view == "auto" and _is_watched(shell)):
        return LiveOutput(max_chars)
    return FinalOutput(max_chars)


def _is_watched(shell: Any) -> bool:
    """Front ends with a user before them take input; nbclient, nbconvert, papermill and nbval do not."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    return shell.kernel._allow_stdin and not isinstance(shell.display_pub, CapturingDisplayPublisher)


class RunDisplay:
    """Follows a run and shows it, from entering the context until leaving it, or until the run ends if it `goes_on`.

    Args:
        server_info: what tells, while nothing comes, what the engine is doing; may block.
    """

    def __init__(
        self, log: EventLog, sink: Sink, server_info: Callable[[], dict[str, Any] | None] = lambda: None
    ) -> None:
        self._log = log
        self._sink = sink
        self._watch = EngineWatch(server_info)
        self._follower = Follower(log)
        self._left = threading.Event()
        self._goes_on = self._stops = False
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._follow,), name="sgl-display", daemon=True)

    @property
    def run(self) -> Run:
        """The record, complete once the context is left."""
        return self._follower.run

    def go_on(self) -> bool:
        """Show the run to its end, after the context is left too. False, and without effect, where that cannot be shown."""
        self._goes_on = self._sink.outlives_cell
        return self._goes_on

    def wait(self, timeout: float = math.inf) -> bool:
        """Wait until the run and all its forks have ended; False if they have not after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while open_log := next((log for log in log_tree(self._log) if not log.closed), None):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            open_log.wait(len(open_log.events), None if left == math.inf else left)
        return True

    def stop(self, grace: float) -> None:
        """Wait until the run, which was cancelled, has ended; if it has not after `grace` seconds, it is shown as stopped."""
        self._stops = True
        self.wait(grace)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._goes_on:
            return
        self._left.set()
        self._thread.join()
        self._follower.advance()
        for run in self.run.tree if self._stops else ():
            if run.status == "running":
                run.status, run.generating, run.progress = "stopped", None, None
        self._sink.finish(self.run)

    def _follow(self) -> None:
        follower = self._follower
        while not self._left.is_set():
            if self._goes_on and follower.closed:
                self._sink.finish(self.run)
                return
            if (follower.advance() or self._learns_what_is_waited_for()) and not follower.closed:
                started = time.monotonic()
                self._sink.update(self.run)
                self._left.wait(_pause(self.run, time.monotonic() - started))
            elif self._log.closed:
                self._left.wait(TICK)
            else:
                self._log.wait(follower.position, TICK)

    def _learns_what_is_waited_for(self) -> bool:
        """Whether the engine told something new about requests of which nothing has come."""
        has_news = False
        for run in self.run.tree:
            if run.progress and run.progress.first is None:
                words = self._watch.words(run.progress.began)
                has_news = has_news or words != run.waits_for
                run.waits_for = words
        return has_news


def _pause(run: Run, cost: float) -> float:
    """How long to leave the output as it is, in seconds, after an update that took `cost` seconds to send."""
    pictures = sum(len(url) for segment in run.segments if segment.picture for url in segment.picture.urls)
    size = pictures + sum(len(segment.text) for segment in run.segments)
    return max(LARGE_PAUSE if size > LARGE else MIN_PAUSE, cost / MAX_SENDING_SHARE)


def _settled(run: Run) -> Run:
    """The run up to the first fork in which text may still arrive in several places."""
    blocks = []
    for block in run.blocks:
        if isinstance(block, Fork) and not all(map(_rests, block.children)):
            break
        blocks.append(block)
    return replace(run, blocks=blocks)


def _rests(run: Run) -> bool:
    """Whether the fork has ended, or has generated something and is not at it now."""
    return run.status != "running" or (run.generating is None and bool(run.variables))
