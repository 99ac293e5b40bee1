"""What notebooks and scripts leave running: the engines that a test has started, known by a mark in their environment."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import psutil
import pytest

GONE_SECONDS = 3.0
MARK = "SGL_JUPYTER_NOTEBOOK_TEST"
MODULES = ("kernel_engine.launch_server", "sgl_jupyter.lifecycle.supervisor")


@pytest.fixture
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Marks every process that this test starts, and sees to it that no engine and no supervisor among them outlives it."""
    mark = secrets.token_hex(8)
    monkeypatch.setenv(MARK, mark)
    yield
    deadline = time.monotonic() + GONE_SECONDS
    while (left := engine_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def engine_processes(mark: str) -> set[int]:
    """Process ids of the engines and supervisors that were started with this mark."""
    found = set()
    for process in psutil.process_iter(["pid", "cmdline", "status", "environ"]):
        is_engine = any(module in (process.info["cmdline"] or []) for module in MODULES)
        is_ours = (process.info["environ"] or {}).get(MARK) == mark
        if is_engine and is_ours and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.add(process.info["pid"])
    return found
