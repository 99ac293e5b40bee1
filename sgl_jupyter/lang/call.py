"""One call of a program: its body with its arguments, ready to be run with a state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sgl_jupyter.lang.config import global_config
from sgl_jupyter.lang.executor import Executor
from sgl_jupyter.lang.state import ProgramState


@dataclass(frozen=True)
class Call:
    """`arguments` are those of the call by the names of the parameters, defaults included."""

    func: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    arguments: Mapping[str, Any]

    def state(self, executor: Executor, followed: bool = False) -> ProgramState:
        """A handle on the state that the call runs with."""
        return ProgramState(executor, followed, program=self.func.__name__, arguments=self.arguments)

    def run(self, state: ProgramState, handle: ProgramState) -> None:
        """Run the body with `state`, end the state however the body is left, and leave what it returns at `handle`."""
        try:
            handle.ret_value = self.func(state, *self.args, **self.kwargs)
        except Exception as error:
            state.fail(error)
            raise
        except BaseException:
            state.cancel()
            raise
        state.end()
        if global_config.verbosity >= 2:
            print(state.text())

    def run_quietly(self, state: ProgramState, handle: ProgramState) -> None:
        """`run` in a thread that is not the caller's: the state tells its error to whoever reads."""
        with suppress(BaseException):
            self.run(state, handle)
