"""Programs without IPython: plain `python` scripts stream, stop and fail as scripts do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from .notebook_kernel import HERE, REPOSITORY

PROGRAM = """
from sgl_jupyter import *
from sgl_jupyter.backends.base import BackendError
from scripted_backend import ScriptedBackend

@function
def tell(s):
    s += assistant(gen("story"))

state = tell.run(stream=True, backend=ScriptedBackend({answer}))
for piece in state.text_iter("story"):
    print(piece, end="", flush=True)
print()
"""


def start(folder: Path, answer: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(PROGRAM.format(answer=answer))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [HERE, REPOSITORY]))}
    return subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read(process: subprocess.Popen[str], text: str) -> None:
    """Wait until the script has printed `text` and nothing else."""
    assert process.stdout is not None
    assert process.stdout.read(len(text)) == text


def test_text_is_printed_as_it_comes(tmp_path: Path) -> None:
    with start(tmp_path, '["Once ", 1, "upon"]') as process:
        read(process, "Once ")
        assert process.poll() is None
        out, err = process.communicate(timeout=30)
    assert (out, err, process.returncode) == ("upon\n", "", 0)


def test_a_failure_is_the_exit_code(tmp_path: Path) -> None:
    with start(tmp_path, '["Once ", BackendError("out of memory")]') as process:
        out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ("Once ", 1)
    assert "BackendError: out of memory\n" in err


def test_an_interrupt_ends_the_script(tmp_path: Path) -> None:
    with start(tmp_path, '["Once ", 60]') as process:
        read(process, "Once ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert out == ""
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT
