"""The Python examples of a page of documentation, each with the heading that it stands under."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1] / "docs"


class Example(NamedTuple):
    heading: str
    code: str
    line: int


def examples(page: str) -> list[Example]:
    """All ```python blocks of docs/`page`."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = []
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        headings = re.findall(r"^#+ (.+)$", text[: block.start()], re.MULTILINE)
        found.append(Example(headings[-1], block.group(1), text.count("\n", 0, block.start()) + 2))
    return found


def run_example(example: Example, page: str, namespace: dict[str, object]) -> None:
    """Run the code in `namespace`; a traceback names the page and the line."""
    code = compile("\n" * (example.line - 1) + example.code, str(DOCS / page), "exec", dont_inherit=True)
    exec(code, namespace)
