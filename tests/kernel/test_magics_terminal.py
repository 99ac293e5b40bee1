"""`%%sgl` where there is no notebook: IPython in a terminal, and IPython whose output goes to a file."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .notebook_kernel import HERE, REPOSITORY

SETUP = """
%load_ext sgl_jupyter
from sgl_jupyter import *
from scripted_backend import ScriptedBackend
"""
SCRIPT = """
set_default_backend(ScriptedBackend(["Par", 0.3, "is"], ["left", 0.1], ["right", 0.2, "!"], ["end"]))
get_ipython().run_cell_magic("sgl", "", 'user("Where?")\\nassistant(gen("city"))')
get_ipython().run_cell_magic("sgl", "", '''
f = s.fork(2)
f += assistant(gen("way"))
assistant(f[0]["way"] + f[1]["way"] + gen("rest"))
''')
"""
LONG = """
set_default_backend(ScriptedBackend(["Once ", 30]))
get_ipython().run_cell_magic("sgl", "", 'assistant(gen("story"))')
"""
SLOW_TO_END = LONG.replace('["Once ", 30])', '["Once ", 30], farewell=5)')
FIRST = "system:\nYou are a helpful assistant.\n\nuser:\nWhere?\n\nassistant:\ncity=«Paris»\n"


def command(folder: Path, cells: str) -> tuple[list[str], dict[str, str]]:
    script = folder / "script.ipy"
    script.write_text(SETUP + cells)
    places = {"PYTHONPATH": os.pathsep.join(map(str, [HERE, REPOSITORY])), "IPYTHONDIR": str(folder)}
    return [sys.executable, "-m", "IPython", "--no-banner", str(script)], {**os.environ, **places}


def test_a_file_gets_plain_text(tmp_path: Path) -> None:
    argv, environment = command(tmp_path, SCRIPT)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True)
    first, second = done.stdout[: len(FIRST)], done.stdout[len(FIRST) :]
    assert first == FIRST
    assert second.count("[fork 1 of 2]") == 1
    assert second.endswith("assistant:\nleftright!rest=«end»\n")
    assert "\x1b" not in done.stdout
    assert "<IPython" not in done.stdout


def test_a_terminal_gets_colours_as_the_text_comes(tmp_path: Path) -> None:
    argv, environment = command(tmp_path, SCRIPT)
    screen, terminal = pty.openpty()
    with subprocess.Popen(argv, env=environment, stdin=terminal, stdout=terminal, stderr=subprocess.STDOUT):
        os.close(terminal)
        pieces = []
        while piece := _read(screen):
            pieces.append(piece)
    os.close(screen)
    output = b"".join(pieces).decode().replace("\r\n", "\n")
    assert "\x1b[34mParis" in output
    assert FIRST in re.sub(r"\x1b\[[\d;]*m", "", output)
    reads_with_the_start_only = [p for p in pieces if b"Par" in p and b"Paris" not in p]
    assert reads_with_the_start_only


@pytest.mark.parametrize("cells", [LONG, SLOW_TO_END], ids=["at once", "slowly"])
def test_an_interrupt_keeps_what_was_printed(tmp_path: Path, cells: str) -> None:
    """Also where the request takes longer to end than anybody waits."""
    argv, environment = command(tmp_path, cells)
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout is not None
        before = ""
        while not before.endswith("story=«Once "):
            letter = process.stdout.read(1)
            assert letter, before
            before += letter
        process.send_signal(signal.SIGINT)
        after, _ = process.communicate(timeout=20)
    assert after.startswith("»\n\n[stopped]\n")
    assert "Stopped. The text and variables so far are in `s` and `_sgl`." in after


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 65536)
    except OSError:  # how Linux tells that the other side has closed
        return b""
