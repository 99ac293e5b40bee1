"""Runs the expressions of one state, in order, on the background loop.

A state with nothing to do holds no task and no thread: the first expression in an empty queue starts a task, which ends when the
queue is drained. Every state ends in exactly one way, finished, stopped or failed, and once it has, nothing waits on it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from sgl_jupyter.backends.base import BackendError
from sgl_jupyter.lang.events import INTERRUPTIBLE, Failed, Finished, Forked, Joined, Stopped
from sgl_jupyter.lang.interpreter import Interpreter
from sgl_jupyter.lang.ir import SglExpr, SglSetVar, role_after, single_nodes, variables_of
from sgl_jupyter.lang.loop import background_loop


class ProgramStopped(RuntimeError):
    """The state was stopped, by `cancel()` or an interrupt, before what is asked for was there."""


class Executor:
    """The queue of one state, its one worker task, and the ways to wait for them. Safe to use from any thread.

    An interrupt while waiting stops the state.
    """

    def __init__(self, interpreter: Interpreter, open_role: str | None = None) -> None:
        self.interpreter = interpreter
        self.document = interpreter.document
        self.log = interpreter.document.log
        self.closed: Future[Finished | Stopped | Failed] = Future()
        """Done when the state has ended, with the event that closed its log."""

        self._changed = threading.Condition()
        self._queue: deque[SglExpr] = deque()
        self._unset: Counter[str | None] = Counter()  # how often what is queued will yet set each variable
        self._open_role = open_role  # after all that is queued, so that a mistake is told to the line that makes it
        self._working = False
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        self._outcome: Stopped | Failed | None = None
        self._traceback: Any = None
        self._children: list[Executor] = []

    # Writing

    def submit(self, expr: SglExpr) -> None:
        """Queue `expr`. When the program has ended, variables can still be set.

        Raises:
            ValueError: roles are nested, or closed in the wrong order.
            RuntimeError: the program has ended; `ProgramStopped` if it was stopped. If it failed, its error is raised.
        """
        nodes = list(single_nodes(expr, self))
        with self._changed:
            self._raise_if_over(variables_only=all(isinstance(node, SglSetVar) for node in nodes))
            if self.closed.done():
                self.document.variables |= {node.name: node.value for node in nodes if isinstance(node, SglSetVar)}
                return
            self._open_role = role_after(nodes, self._open_role)
            self._queue.extend(nodes)
            self._unset.update(name for node in nodes for name in variables_of(node))
            self._start_working()

    def end(self) -> None:
        """Nothing more will be appended: the state is finished as soon as its queue is drained."""
        with self._changed:
            self._ended = True
            if not self._working:
                self._close()
            self._changed.notify_all()

    def cancel(self) -> None:
        """Stop at once, and close the request at the backend. Text and variables so far stay readable."""
        self._abandon(Stopped())

    def fail(self, error: BaseException) -> None:
        """End with `error`, which every later use of the state raises."""
        self._abandon(Failed(error))

    def fork(self, size: int) -> list[Executor]:
        """Copies that go on by themselves. They end with this state, if not before."""
        children = [Executor(self.interpreter.fork(), self._open_role) for _ in range(size)]
        with self._changed:
            self._children += children
        self.log.append(Forked(tuple(child.log for child in children)))
        return children

    def join(self, children: Iterable[Executor]) -> None:
        """The children have done their part."""
        for child in children:
            child.end()
        self.log.append(Joined())

    # Reading

    @property
    def is_open(self) -> bool:
        """Whether expressions can still be appended."""
        return not self._ended and self._outcome is None

    @property
    def error(self) -> BaseException | None:
        return self._outcome.error if isinstance(self._outcome, Failed) else None

    @property
    def status(self) -> str:
        """One of: running, finished, stopped, failed."""
        return "running" if not self.closed.done() else type(self.closed.result()).__name__.lower()

    def raise_error(self) -> None:
        """Raise the error the state failed with, if it did, with the traceback of where it happened."""
        if self.error is not None:
            raise self.error.with_traceback(self._traceback)

    def wait(self, ended: bool = False) -> None:
        """Wait until all that was appended is done; with `ended`, also until nothing more will be appended."""
        self._wait_for(lambda: not self._working and (self._ended or not ended))

    def value(self, name: str | None, ended: bool = False) -> Any:
        """The variable's value, once all that was appended has set it; with `ended`, also once what sets it is appended.

        Raises:
            KeyError: nothing sets the variable.
            ProgramStopped: the state was stopped before it was set. If the state failed, its error is raised.
        """
        variables = self.document.variables

        def ready() -> bool:
            if self._unset[name] or (self._working and self.interpreter.puts_off(name)):
                return False
            return name in variables or self._ended or not ended

        self._wait_for(ready)
        self.raise_error()
        if name in variables:
            return variables[name]
        if self._outcome is not None:
            raise ProgramStopped(f"the program was stopped before {name!r} was set")
        if self.interpreter.puts_off(name):
            raise RuntimeError(
                f"{name!r} is set when its assistant turn ends: with num_api_spec_tokens, one call answers the whole turn"
            )
        error = KeyError(name)
        known = dict.fromkeys([*variables, *+self._unset])
        error.add_note(f"nothing sets it; there {'is' if known else 'are no variables'} {', '.join(map(repr, known))}")
        raise error

    def sets(self, name: str | None) -> bool:
        """Whether the variable is set, or will be by what was appended."""
        return name in self.document.variables or self._unset[name] > 0

    # Working

    def _raise_if_over(self, variables_only: bool) -> None:
        self.raise_error()
        if self._outcome is not None:
            raise ProgramStopped("the program was stopped: nothing more can be appended to its state")
        if self._ended and not variables_only:
            raise RuntimeError("the program has ended: nothing more can be appended to its state, but to a fork of it")

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()`, or the state has ended: one that is about to be stopped still has partial text to set."""

        def done() -> bool:
            return self.closed.done() or (self._outcome is None and ready())

        try:
            with self._changed:
                while not self._changed.wait_for(done, INTERRUPTIBLE):
                    pass
        except KeyboardInterrupt:
            self.cancel()
            raise

    def _start_working(self) -> None:
        """Have a task work on the queue, if none does. The lock is held."""
        if self._queue and not self._working:
            self._working = True
            background_loop().call_soon_threadsafe(self._start_task)

    def _start_task(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._finish_task)

    async def _work(self) -> None:
        while (expr := self._take()) is not None:
            try:
                await self.interpreter.execute(expr)
            except Exception as error:
                error.add_note(f"while running {expr!r}")
                raise
            with self._changed:
                self._unset.subtract(variables_of(expr))
                self._changed.notify_all()

    def _take(self) -> SglExpr | None:
        with self._changed:
            return self._queue.popleft() if self._queue else None

    def _finish_task(self, task: asyncio.Task[None]) -> None:
        """The task is over: the queue was drained, an expression failed, or the state was abandoned."""
        with self._changed:
            self._working = False
            error = None if task.cancelled() else task.exception()
            if error and self._outcome is None:
                self._settle(Failed(error))
            self._start_working()
            if self._outcome is not None or (self._ended and not self._working):
                self._close()
            self._changed.notify_all()

    def _abandon(self, outcome: Stopped | Failed) -> None:
        with self._changed:
            if self._outcome is not None or self.closed.done():
                return
            self._settle(outcome)
            if self._working:
                background_loop().call_soon_threadsafe(self._cancel_task)
            else:
                self._close()
            self._changed.notify_all()

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _settle(self, outcome: Stopped | Failed) -> None:
        """Decide how the state ends, and drop what was not begun. The lock is held."""
        self._outcome = outcome
        if isinstance(outcome, Failed):
            _leave_out_machinery(outcome.error)
            self._traceback = outcome.error.__traceback__
        self._queue.clear()
        self._unset.clear()

    def _close(self) -> None:
        """Write the last event; the children end the same way. The lock is held: locks are taken from parent to child."""
        if self.closed.done():
            return
        last = self._outcome or Finished()
        self.log.append(last)
        self.closed.set_result(last)
        for child in self._children:
            child.end() if isinstance(last, Finished) else child.cancel()


def _leave_out_machinery(error: BaseException) -> None:
    """What a backend tells is all in its message: none of the lines that it came through are the program's."""
    if isinstance(error, BackendError):
        error.__traceback__ = error.__cause__ = error.__context__ = None
