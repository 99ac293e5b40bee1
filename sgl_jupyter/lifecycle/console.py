"""Where this process's user looks: a notebook, a terminal, or nowhere; and one line of news there while they wait."""

from __future__ import annotations

import re
import sys
from typing import Any, Protocol

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LINE_WIDTH = 120


class StatusLine(Protocol):
    """One line that is written over by the next."""

    def show(self, text: str) -> None: ...

    def finish(self, text: str) -> None:
        """Leave `text` where there is a place for it to stay."""
        ...


def status_line() -> StatusLine:
    """A line where someone may be watching; elsewhere one that shows nothing, so that saved output stays the same."""
    shell = kernel_shell()
    if shell is not None:
        # Front ends that can answer allow stdin; nbclient, nbconvert, papermill and nbval do not.
        return _NotebookLine() if getattr(shell.kernel, "_allow_stdin", False) else _NoLine()
    return _TerminalLine() if sys.stderr.isatty() else _NoLine()


def kernel_shell() -> Any | None:
    """IPython's shell if this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None


def printable(text: str) -> str:
    """`text` without what a terminal would obey: escape sequences and control characters, but newline and tab."""
    return _ESCAPES.sub("", text)


class _NoLine:
    def show(self, text: str) -> None:
        pass

    def finish(self, text: str) -> None:
        pass


class _TerminalLine:
    def show(self, text: str) -> None:
        sys.stderr.write("\r\x1b[2K" + printable(text)[:LINE_WIDTH])
        sys.stderr.flush()

    def finish(self, text: str) -> None:
        self.show("")


class _NotebookLine:
    def __init__(self) -> None:
        self._shown = ""
        self._handle: Any = None

    def show(self, text: str) -> None:
        from IPython.display import display

        text = printable(text)[:LINE_WIDTH]
        if text == self._shown:
            return
        self._shown = text
        if self._handle is None:
            self._handle = display({"text/plain": text}, raw=True, display_id=True)
        else:
            self._handle.update({"text/plain": text}, raw=True)

    def finish(self, text: str) -> None:
        if self._handle is not None:
            self.show(text)
