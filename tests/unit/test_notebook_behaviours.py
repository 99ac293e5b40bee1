"""The list of behaviours names tests that exist, and leaves no behaviour out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "behaviours.md").read_text()


def test_every_test_it_names_exists() -> None:
    defined = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert set(re.findall(r"`(test_\w+)`", PAGE)) <= defined


def test_every_behaviour_is_listed_once() -> None:
    first_column = re.findall(r"^\| (B[\d, B]+) \|", PAGE, re.MULTILINE)
    listed = [name for cell in first_column for name in cell.split(", ")]
    assert sorted(listed) == [f"B{number:02}" for number in range(1, 39)]
