"""`make demo`: run the quick-start notebook on the bundled model and show it as a conversation."""

from __future__ import annotations

import re
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
RUN = "application/vnd.sgl_jupyter.run+json"
GENERATED = re.compile(r"«.*?»", re.DOTALL)


class Show:
    """Prints cells as they are executed: prose as it is, code indented, what came of it behind a bar.

    In a conversation, what the model wrote stands between guillemets; a terminal shows it in colour as well.
    """

    def __init__(self, colours: bool):
        self._colours = colours

    def begin(self, cell: Any, **_: Any) -> None:
        if cell.cell_type == "markdown":
            heading, _, prose = cell.source.partition("\n")
            is_heading = heading.startswith("#")
            print(f"\n{self._styled('1', heading.lstrip('# ')) if is_heading else cell.source}")
            print(f"{prose}\n" if is_heading else "")
        else:
            print(self._code(cell.source), end="\n\n", flush=True)

    def end(self, cell: Any, **_: Any) -> None:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            text = output.get("text") or data.get("text/plain", "")
            if output.get("name") != "stderr" and text.strip():
                self._answer(text.strip("\n"), conversation=RUN in data)

    def _answer(self, text: str, conversation: bool) -> None:
        if conversation:
            text = GENERATED.sub(lambda found: self._lines_styled("1;36", found[0]), text)
        else:
            text = self._lines_styled("1;36", text)
        for line in text.splitlines():
            print(f"  ┃ {line}")
        print(flush=True)

    def _code(self, source: str) -> str:
        if self._colours:
            source = highlight(source, PythonLexer(), Terminal256Formatter(style="friendly")).rstrip("\n")
        return "\n".join(f"    {line}" for line in source.splitlines())

    def _lines_styled(self, style: str, text: str) -> str:
        return "\n".join(self._styled(style, line) for line in text.split("\n"))

    def _styled(self, style: str, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colours else text


def main() -> None:
    notebook = nbformat.read(HERE / "quickstart.ipynb", as_version=4)
    show = Show(colours=sys.stdout.isatty())
    quiet = ["--IPKernelApp.log_level=ERROR"]
    resources = {"metadata": {"path": str(HERE)}}
    client = NotebookClient(notebook, timeout=CELL_SECONDS, resources=resources, extra_arguments=quiet)
    client.on_cell_start, client.on_cell_executed = show.begin, show.end
    client.execute()
    EXECUTED.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, EXECUTED)
    print(f"\nThe executed notebook is {EXECUTED}")


if __name__ == "__main__":
    main()
