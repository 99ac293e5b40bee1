"""`make demo`: run the quick-start notebook on the bundled model and show it as a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from pygments import highlight
from pygments.formatters import Terminal256Formatter
from pygments.lexers import PythonLexer

HERE = Path(__file__).parent
EXECUTED = HERE.parent / ".demo" / "quickstart.ipynb"
CELL_SECONDS = 300


class Show:
    """Prints cells as they are executed: headings bold, code in colours, what the model said behind a bar."""

    def __init__(self, colours: bool):
        self._colours = colours

    def cell(self, cell: Any, **_: Any) -> None:
        if cell.cell_type == "markdown":
            print(f"\n{self._styled('1', cell.source)}\n")
            return
        print(self._code(cell.source))
        for output in cell.get("outputs", ()):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if output.get("name") != "stderr" and text.strip():
                self._answer(text.strip("\n"))
        sys.stdout.flush()

    def _answer(self, text: str) -> None:
        print()
        for line in text.splitlines():
            print(self._styled("1;36", f"  ┃ {line}"))

    def _code(self, source: str) -> str:
        if self._colours:
            source = highlight(source, PythonLexer(), Terminal256Formatter(style="friendly")).rstrip("\n")
        return "\n".join(f"    {line}" for line in source.splitlines())

    def _styled(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colours else text


def main() -> None:
    notebook = nbformat.read(HERE / "quickstart.ipynb", as_version=4)
    show = Show(colours=sys.stdout.isatty())
    client = NotebookClient(notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(HERE)}})
    client.on_cell_complete = show.cell
    client.execute()
    EXECUTED.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, EXECUTED)
    print(f"\nThe executed notebook is {EXECUTED}")


if __name__ == "__main__":
    main()
