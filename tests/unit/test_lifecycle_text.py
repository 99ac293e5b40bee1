"""The small pieces of text that lifecycle reads and shows."""

from pathlib import Path

import pytest

from sgl_jupyter.lifecycle.console import printable
from sgl_jupyter.lifecycle.logs import last_line, tail


@pytest.mark.parametrize(
    ("written", "n", "shown"),
    [
        (b"", 5, []),
        (b"a\nb\n\nc", 2, ["b", "c"]),
        (b"a\nb\n", 0, []),
        (b"0 %\r50 %\r100 %\n", 5, ["100 %"]),
        (b"0 %\r50 %", 5, ["50 %"]),
        (b"windows\r\nline\r\n", 5, ["windows", "line"]),
        ("Länder \N{CJK UNIFIED IDEOGRAPH-4E2D}\n".encode() + b"\xff", 5, ["Länder 中", "\ufffd"]),
        (b"start\n" + b"x" * 300_000 + b"\nend\n", 1, ["end"]),
    ],
)
def test_the_tail_of_a_log_is_its_last_lines_as_a_terminal_would_show_them(
    tmp_path: Path, written: bytes, n: int, shown: list[str]
):
    log = tmp_path / "log"
    log.write_bytes(written)
    assert tail(log, n) == shown
    assert last_line(log) == (tail(log, 1) or [""])[0]


def test_a_log_that_is_gone_has_no_lines(tmp_path: Path):
    assert tail(tmp_path / "none", 3) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nöß中🙂", "plain\ttext\nöß中🙂"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("a\rb\x08c\x00\x9bd", "abcd"),
        ("\x1b", ""),
    ],
)
def test_text_for_a_terminal_holds_no_commands(text: str, shown: str):
    assert printable(text) == shown
