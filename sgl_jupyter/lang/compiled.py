"""`SglFunction.compile`: a program that is known to have the same shape whatever its arguments are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sgl_jupyter.lang.program import SglFunction
    from sgl_jupyter.lang.state import ProgramState


class CompiledFunction:
    """A program that was traced once, and runs as it would otherwise.

    Args:
        function: the program.
        backend: the one whose chat template the graph is written in; without it the default one.

    Raises:
        TypeError: what the program does depends on its arguments, or on what is generated.
    """

    def __init__(self, function: SglFunction, backend: Any = None) -> None:
        self.function = function
        self.last_node = function.trace(backend=backend).last_node

    def print_graph(self) -> None:
        """Print all that the program appends, one expression a line."""
        print(self.last_node.print_graph_dfs() if self.last_node else "", end="")

    def run(self, *, backend: Any = None, **kwargs: Any) -> ProgramState:
        """`SglFunction.run`."""
        return self.function.run(backend=backend, **kwargs)

    def run_batch(
        self,
        batch_kwargs: Sequence[Mapping[str, Any]],
        *,
        backend: Any = None,
        num_threads: int | Literal["auto"] = "auto",
        **settings: Any,
    ) -> list[ProgramState]:
        """`SglFunction.run_batch`."""
        return list(self.function.run_batch(batch_kwargs, backend=backend, num_threads=num_threads, **settings))
