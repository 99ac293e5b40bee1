"""docs/language.md: its examples run one after another on the bundled model, and its tables are complete and true."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sgl_jupyter as sgl

from ..examples import DOCS, examples, run_example
from .support import ServerProcess

PAGE = "language.md"
TEXT = (DOCS / PAGE).read_text(encoding="utf-8")


def test_the_examples_run_one_after_another(server: ServerProcess) -> None:
    endpoint = sgl.RuntimeEndpoint(server.url)
    names: dict[str, Any] = {"engine": SimpleNamespace(endpoint=endpoint), "__name__": "__main__"}
    server.wait_until_idle()
    with sgl.default_backend(endpoint), warnings.catch_warnings():
        warnings.simplefilter("error")
        for example in examples(PAGE):
            run_example(example, PAGE, names)
    assert names["usage"][0] > 10


def test_every_public_name_of_the_language_is_on_the_page() -> None:
    homes = {name: module for module, names in sgl._HOME.items() for name in names}
    language = {name for name, module in homes.items() if module.startswith("sgl_jupyter.lang.")}
    types = {"ProgramState", "ProgramStateGroup", "ProgramStopped", "SglFunction"}
    halves = {f"{role}_{half}" for role in ("system", "assistant") for half in ("begin", "end")}
    assert {name for name in language - types - halves if not re.search(rf"\b{name}\b", TEXT)} == set()


def test_every_trap_is_in_the_table_and_has_a_test_of_its_name() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (Path(__file__).parents[1]).rglob("test_*.py"))
    named = {int(number) for number in re.findall(r"def test_ub(\d+)_", tests)}
    named |= {n for a, b in re.findall(r"def test_ub(\d+)_to_ub(\d+)_", tests) for n in range(int(a), int(b) + 1)}
    listed = [int(number) for number in re.findall(r"^\| UB-(\d+) \|", TEXT, re.MULTILINE)]
    assert listed == list(range(1, 36))
    assert set(listed) - named == set()
