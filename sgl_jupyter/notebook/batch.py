"""Several states as one table, a row for each: what was asked, the variables, how it ended and its tokens. Bounded in size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sgl_jupyter.lang.state import ProgramState, ProgramStateGroup
from sgl_jupyter.notebook.html import table_html
from sgl_jupyter.notebook.run import Message, Run
from sgl_jupyter.notebook.text import notes, table, visible

MAX_ROWS = 100
MAX_HTML_CELL = 400
"""Characters of one value."""
MAX_TEXT_CELL = 48


@dataclass(frozen=True)
class Batch:
    """The first `MAX_ROWS` of several runs."""

    runs: Sequence[Run]
    left_out: int

    @classmethod
    def of(cls, value: Any) -> Batch | None:
        """The batch in a list of states, such as `run_batch` returns, or in the forks of a state, once all are done.

        None for any other value. An interrupt while waiting stops all of them.
        """
        states = value.states if isinstance(value, ProgramStateGroup) else value
        if not isinstance(states, list) or not states or not all(isinstance(state, ProgramState) for state in states):
            return None
        try:
            for state in states:
                state.error()
        except KeyboardInterrupt:
            for state in states:
                state.cancel()
            raise
        shown = states[:MAX_ROWS]
        return cls([Run.from_log(state.log) for state in shown], len(states) - len(shown))

    def html(self) -> str:
        rows = [[_clipped(cell, MAX_HTML_CELL) for cell in row] for row in self._rows()]
        generated = {segment.variable for run in self.runs for segment in run.segments if segment.origin != "prompt"}
        return table_html(self._head(), rows, [name in generated for name in self._head()], self._notes())

    def text(self) -> str:
        rows = [[_clipped(visible(" ".join(cell.split())), MAX_TEXT_CELL) for cell in row] for row in self._rows()]
        return "\n".join([table(self._head(), rows), *(f"[{note}]" for note in self._notes())])

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for run in self.runs for name in run.variables))

    def _head(self) -> list[str]:
        return ["#", "user", *self._names(), "status", "tokens"]

    def _rows(self) -> list[list[str]]:
        return [[str(number), *_cells(run, self._names())] for number, run in enumerate(self.runs)]

    def _notes(self) -> list[str]:
        return [f"{self.left_out} more rows are not shown here"] if self.left_out else []


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


def _cells(run: Run, names: Sequence[str]) -> list[str]:
    values = (run.variables.get(name, "") for name in names)
    cells = [value if isinstance(value, str) else repr(value) for value in values]
    status = "done" if run.status == "done" else " ".join(notes(run))
    return [_asked(run), *cells, status, str(run.usage.completion_tokens)]


def _asked(run: Run) -> str:
    """What the last message of the user says: by it a reader tells the runs of a batch apart."""
    asked = [block for block in run.blocks if isinstance(block, Message) and block.role == "user"]
    return "".join(segment.text for segment in asked[-1].segments if segment.origin != "template") if asked else ""


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
