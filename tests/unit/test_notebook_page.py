"""The page about the notebook names every command and every option, and for each what in Python does the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.lifecycle import EngineHandle
from sgl_jupyter.notebook.engine_parsers import engine_parsers
from sgl_jupyter.notebook.magics import _cell_parser

PAGE = Path(__file__).parents[2] / "docs" / "notebook.md"
ROWS = re.findall(r"^\| (`.*?) \| .*? \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", [*engine_parsers(), "help"])
def test_every_command_has_a_twin(command: str) -> None:
    assert [twin for name, twin in ROWS if re.match(rf"`%sgl {command}\b", name)]


def test_every_option_has_a_twin() -> None:
    named = {option for name, _ in ROWS for option in re.findall(r"(?<![\w-])--?[a-z-]+", name)}
    assert set(_cell_parser().options) <= named


def test_the_twins_exist() -> None:
    twins = " ".join(twin for _, twin in ROWS)
    assert {name for name in re.findall(r"\bsgl\.(\w+)", twins) if not hasattr(sgl, name)} == set()
    assert {name for name in re.findall(r"\bengine\.(\w+)", twins) if not hasattr(EngineHandle, name)} == set()


@pytest.mark.parametrize("page", [PAGE, PAGE.with_name("widgets.md")], ids=lambda page: page.stem)
def test_the_pictures_are_there_for_both_themes(page: Path) -> None:
    pictures = set(re.findall(r"images/[\w-]+\.png", page.read_text()))
    assert {name for name in pictures if not (PAGE.parent / name).exists()} == set()
    assert {name.replace(".png", "-dark.png") for name in pictures if "-dark" not in name} <= pictures
