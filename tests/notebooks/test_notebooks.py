"""Every tutorial notebook gives exactly its stored outputs when it is run again, and leaves nothing running."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
GONE_SECONDS = 3.0


def engine_processes() -> set[int]:
    """Process ids of every engine and supervisor on this machine."""
    modules = ("kernel_engine.launch_server", "sgl_jupyter.lifecycle.supervisor")
    found = set()
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        command = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(module in command for module in modules):
            found.add(process.info["pid"])
    return found


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_running_again_gives_the_stored_outputs(notebook: Path) -> None:
    before = engine_processes()
    sanitize = Path(__file__).with_name("sanitize.cfg")
    command = [
        sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=300",
        f"--nbval-sanitize-with={sanitize}", "-p", "no:cacheprovider", "-q", str(notebook),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    deadline = time.monotonic() + GONE_SECONDS
    while (left := engine_processes() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_executed_and_small(notebook: Path) -> None:
    stored = nbformat.read(notebook, as_version=4)
    assert all(cell.execution_count for cell in stored.cells if cell.cell_type == "code")
    assert "widgets" not in stored.metadata
    assert notebook.stat().st_size < 200_000
