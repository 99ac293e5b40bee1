"""Several states as one table, a row for each: what went in, the variables, how it ended and its tokens.

What is shown is bounded in size; `dataframe` has it all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sgl_jupyter.lang.state import ProgramState, ProgramStateGroup
from sgl_jupyter.notebook.html import table_html
from sgl_jupyter.notebook.run import Message, Run
from sgl_jupyter.notebook.text import notes, table, visible

if TYPE_CHECKING:
    from pandas import DataFrame

MAX_ROWS = 100
MAX_HTML_CELL = 400
"""Characters of one value."""
MAX_TEXT_CELL = 48


@dataclass(frozen=True)
class Batch:
    """The first `MAX_ROWS` of several runs; `inputs` are by what a reader tells them apart."""

    runs: Sequence[Run]
    inputs: Sequence[Mapping[str, Any]]
    left_out: int

    @classmethod
    def of(cls, value: Any) -> Batch | None:
        """The batch in a list of states, such as `run_batch` returns, or in the forks of a state, once all are done.

        None for any other value. An interrupt while waiting stops all of them.
        """
        states = _states_in(value)
        if not states:
            return None
        _wait_for(states)
        shown = states[:MAX_ROWS]
        runs = [Run.from_log(state.log) for state in shown]
        inputs = [state.arguments for state in shown]
        if not all(inputs):
            inputs = [{"user": _asked(run)} for run in runs]
        return cls(runs, inputs, len(states) - len(shown))

    def html(self) -> str:
        rows = [[_clipped(cell, MAX_HTML_CELL) for cell in row] for row in self._rows()]
        generated = {segment.variable for run in self.runs for segment in run.segments if segment.origin != "prompt"}
        before, after = 1 + len(self._input_names()), 2
        marked = [False] * before + [name in generated for name in self._names()] + [False] * after
        return table_html(self._head(), rows, marked, self._notes())

    def text(self) -> str:
        rows = [[_clipped(visible(" ".join(cell.split())), MAX_TEXT_CELL) for cell in row] for row in self._rows()]
        return "\n".join([table(self._head(), rows), *(f"[{note}]" for note in self._notes())])

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for run in self.runs for name in run.variables))

    def _input_names(self) -> list[str]:
        return list(dict.fromkeys(name for given in self.inputs for name in given))

    def _head(self) -> list[str]:
        return ["#", *self._input_names(), *self._names(), "status", "tokens"]

    def _rows(self) -> list[list[str]]:
        return [
            [str(number), *_texts(given, self._input_names()), *_cells(run, self._names())]
            for number, (given, run) in enumerate(zip(self.inputs, self.runs, strict=True))
        ]

    def _notes(self) -> list[str]:
        return [f"{self.left_out} more rows are not shown here"] if self.left_out else []


def dataframe(states: Sequence[ProgramState] | ProgramStateGroup) -> DataFrame:
    """A pandas table of states such as `run_batch` returns, or of the forks of a state, with a row for each, once all are done.

    The columns are the arguments, the variables, "status" ("done", "stopped" or "error"), "tokens" (those generated) and "error"
    (its sentence; missing where there is none). Of two columns with one name the latter is kept.

    Raises:
        TypeError: it is no list of states.
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("dataframe() needs pandas: pip install pandas") from None
    found = _states_in(states)
    if found is None:
        raise TypeError(f"dataframe() takes a list of states, such as run_batch returns, not {states!r:.80}")
    _wait_for(found)
    return pandas.DataFrame([_row(state) for state in found])


def show_batches(display_formatter: Any) -> None:
    """Have IPython show batches as tables, and all other lists as before."""
    html, text = (display_formatter.formatters[mime_type] for mime_type in ("text/html", "text/plain"))
    pretty_list: Callable[..., None] = text.for_type(list)

    def as_html(value: Any) -> str | None:
        if batch := Batch.of(value):
            return batch.html()
        own = getattr(
            type(value), "_repr_html_", None
        )  # of a kind of list that shows itself: this function comes before it
        return own(value) if own else None

    def as_text(value: Any, printer: Any, cycle: bool) -> None:
        is_whole_value = len(printer.stack) == 1
        if batch := Batch.of(value) if is_whole_value else None:
            printer.text(batch.text())
        elif isinstance(value, list):
            pretty_list(value, printer, cycle)
        else:
            printer.text(repr(value))

    for kind in (list, ProgramStateGroup):
        html.for_type(kind, as_html)
        text.for_type(kind, as_text)


def _states_in(value: Any) -> list[ProgramState] | None:
    """The states, if `value` is a list of states or the forks of one."""
    states = value.states if isinstance(value, ProgramStateGroup) else value
    is_batch = isinstance(states, list) and all(isinstance(state, ProgramState) for state in states)
    return states if is_batch else None


def _wait_for(states: Sequence[ProgramState]) -> None:
    """Until all are done. An interrupt stops all of them."""
    try:
        for state in states:
            state.error()
    except KeyboardInterrupt:
        for state in states:
            state.cancel()
        raise


def _row(state: ProgramState) -> dict[str, Any]:
    run = Run.from_log(state.log)
    error = f"{type(run.error).__name__}: {run.error}" if run.error else None
    outcome = {"status": run.status, "tokens": run.usage.completion_tokens, "error": error}
    return {**state.arguments, **run.variables, **outcome}


def _cells(run: Run, names: Sequence[str]) -> list[str]:
    status = "done" if run.status == "done" else " ".join(notes(run))
    return [*_texts(run.variables, names), status, str(run.usage.completion_tokens)]


def _texts(values: Mapping[Any, Any], names: Sequence[str]) -> list[str]:
    found = (values.get(name, "") for name in names)
    return [value if isinstance(value, str) else repr(value) for value in found]


def _asked(run: Run) -> str:
    """What the last message of the user says, for forks and programs without arguments."""
    asked = [block for block in run.blocks if isinstance(block, Message) and block.role == "user"]
    return "".join(segment.text for segment in asked[-1].segments if segment.origin != "template") if asked else ""


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
