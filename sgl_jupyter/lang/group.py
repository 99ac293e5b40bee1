"""The forks of a state: how they are appended to together, and how they come together again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from sgl_jupyter.lang.ir import SglExpr

if TYPE_CHECKING:
    from sgl_jupyter.lang.state import ProgramState


class ProgramStateGroup:
    """The forks of a state. `group[i]` and iteration give the single ones; `group += x` appends to all."""

    def __init__(self, states: list[ProgramState], src_state: ProgramState) -> None:
        self.states = states
        self.src_state = src_state
        self._start = len(src_state._executor.document.text)

    def join(self, mode: str = "gather_variable") -> None:
        """Wait for the forks, take over what they made, and end them.

        Args:
            mode: "gather_variable": each variable that is new in a fork becomes a list in the parent, with one element for each
                fork (None where a fork did not set it). "concate_and_append": the forks' texts are appended to the parent's.
        """
        check_join_mode(mode)
        for state in self.states:
            state.sync()
        if mode == "gather_variable":
            self._gather_variables()
        else:
            for state in self.states:
                self.src_state += state.text()[self._start :]
        self.src_state._executor.join(state._executor for state in self.states)

    def _gather_variables(self) -> None:
        forks = [state._executor.document.variables for state in self.states]
        new = dict.fromkeys(name for fork in forks for name in fork if name is not None and name not in self.src_state)
        for name in new:
            self.src_state[name] = [fork.get(name) for fork in forks]

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, i: int) -> ProgramState:
        return self.states[i]

    def __setitem__(self, i: int, value: ProgramState) -> None:
        if value is not self.states[i]:
            raise TypeError("a fork cannot be replaced; append to it with +=")

    def __iter__(self) -> Iterator[ProgramState]:
        return iter(self.states)

    def __iadd__(
        self, other: SglExpr | str | Callable[[int], SglExpr | str] | Sequence[SglExpr | str]
    ) -> ProgramStateGroup:
        """Append the same to all, or `other(i)` or `other[i]` to the i-th."""
        if isinstance(other, SglExpr | str):
            parts = [other] * len(self)
        elif callable(other):
            parts = [other(i) for i in range(len(self))]
        elif isinstance(other, list | tuple):
            parts = list(other)
        else:
            raise ValueError(
                f"Invalid value: {other!r}; text, an expression, a function of the index, or a list is needed"
            )
        for state, part in zip(self.states, parts, strict=True):
            state += part
        return self


def check_join_mode(mode: str) -> None:
    if mode not in ("gather_variable", "concate_and_append"):
        raise ValueError(f"Invalid join mode: {mode}; there are gather_variable and concate_and_append")
