"""What Tab offers on the lines that are ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from IPython.core.completer import CompletionContext
from traitlets.config import Configurable

from sgl_jupyter.lang.dry import DryBackend
from sgl_jupyter.lang.program import begin_state
from sgl_jupyter.notebook.arguments import MagicParser
from sgl_jupyter.notebook.completion import Completer
from sgl_jupyter.notebook.engines import EngineCommands
from sgl_jupyter.notebook.run import Run


@pytest.fixture
def completer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Completer]:
    (tmp_path / "models--Qwen--Qwen3-0.6B").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    parser = MagicParser("%%sgl", "")
    parser.add_argument("--engine")
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--view", choices=("live", "static", "text"))
    engines = EngineCommands(Configurable())
    monkeypatch.setattr(engines, "names", lambda: ["mine", "other"])
    state = begin_state(DryBackend())
    state["city"] = "Paris"
    state.sync()
    names = {"s": state, "_sgl": Run.from_log(state.log), "text": "no state"}
    yield Completer(SimpleNamespace(user_ns=names), parser, engines)
    state.end()


def offered(completer: Completer, cell: str) -> tuple[list[str], bool]:
    """What is offered at the end of a cell, and whether it is all that is offered."""
    *before, line = cell.split("\n")
    token = line.replace('"', " ").replace("'", " ").split(" ")[-1]
    result = completer.match(CompletionContext(token, cell, len(line), len(before), None))
    return [found.text for found in result["completions"]], bool(result.get("suppress"))


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%sgl la", ["launch"]),
        ("%sgl st", ["status", "stop"]),
        ("%sgl use ", ["mine", "other"]),
        ("%sgl launch x --k", ["--keep"]),
        ("x = 1\n%sgl ter", ["terminate"]),
        ("%sgl launch --n", ["--name", "--no-wait"]),
        ("%sgl launch Qw", ["Qwen/Qwen3-0.6B"]),
        ("%sgl launch tiny-c", ["tiny-chat"]),
        ("%sgl terminate ", ["mine", "other"]),
        ("%sgl logs -n 5 m", ["mine"]),
        ("%%sgl --e", ["--engine", "--export"]),
        ("%%sgl out --engine o", ["other"]),
        ("%%sgl --view ", ["live", "static", "text"]),
        ("%%sgl out --view st", ["static"]),
        ('%%sgl\nx = s["', ["city"]),
        ("_sgl['ci", ["city"]),
    ],
)
def test_offers(completer: Completer, cell: str, words: list[str]) -> None:
    assert offered(completer, cell) == (words, True)


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "%sgl launch tiny-chat ",
        "%sgl launch x -- --",
        "%sgl nothing ",
        "%sgl models ",
        "%sgl connect ",
        "%%sgl o",
        "x = 1\n%%sgl --e",
        'text["',
        'unknown["',
        's["city"]',
    ],
)
def test_leaves_other_places_to_others(completer: Completer, cell: str) -> None:
    assert offered(completer, cell) == ([], False)
