"""Every test here gets a registry of its own, the stand-in engine, and must leave no process behind."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import KernelManager

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
PROMISE = 3.0
"""Seconds in which everything is gone after the end of a kernel."""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The Jupyter runtime folder of this test. Its processes are told by having it in their environment."""
    runtime = tmp_path / "runtime"
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(runtime))
    paths = [HERE / "fake", REPOSITORY, *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    monkeypatch.chdir(tmp_path)  # the repository, where Python looks first, has the real engine
    yield runtime
    try:
        expect_nothing_left(runtime)
    finally:
        for process in alive(runtime):
            process.kill()


def expect_nothing_left(runtime: Path) -> None:
    """Fails unless all processes and registry entries are gone within the promised time."""
    deadline = time.monotonic() + PROMISE
    while (left := alive(runtime)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left
    assert not list((runtime / "sgl_jupyter/engines").glob("*"))


def alive(runtime: Path) -> list[psutil.Process]:
    """The test's processes that run, other than the test itself."""
    found = []
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get("JUPYTER_RUNTIME_DIR") == str(runtime)
            if is_ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def nothing_is_left(runtime: Path) -> Callable[[], None]:
    return lambda: expect_nothing_left(runtime)


class Kernel:
    """A real ipykernel, and a client that runs code in it."""

    def __init__(self, allow_stdin: bool = False) -> None:
        self.manager = KernelManager()
        self.manager.start_kernel()
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self._allow_stdin = allow_stdin
        self.messages: list[dict] = []

    def start(self, code: str) -> str:
        """Send `code`; return its request's id without waiting for its end."""
        return self.client.execute(code, allow_stdin=self._allow_stdin)

    def finish(self, request: str) -> dict:
        """Wait for the end of a request. Returns the reply; all that it published is in `messages`."""
        self.messages = []
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
            self.messages.append(message)
        while True:
            reply = self.client.get_shell_msg(timeout=60)
            if reply["parent_header"]["msg_id"] == request:
                return reply["content"]

    def run(self, code: str) -> str:
        """Run `code` to its end without an error; return what it printed."""
        reply = self.finish(self.start(code))
        assert reply["status"] == "ok", "\n".join(reply["traceback"])
        return "".join(m["content"]["text"] for m in self.messages if m["msg_type"] == "stream")

    def wait_for_output(self, wanted: str) -> None:
        """Wait until something that is printed or displayed contains `wanted`."""
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["msg_type"] in ("stream", "display_data", "update_display_data") and wanted in str(
                message["content"]
            ):
                return

    def close(self) -> None:
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)


@pytest.fixture
def start_kernel() -> Iterator[Callable[..., Kernel]]:
    kernels: list[Kernel] = []

    def start(**options: bool) -> Kernel:
        kernels.append(Kernel(**options))
        return kernels[-1]

    yield start
    for kernel in kernels:
        kernel.close()
