"""A kernel_engine process on tiny-chat for a long run, and what it says of its memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

READY_SECONDS = 120


@dataclass(frozen=True)
class Server:
    url: str
    process: psutil.Process
    log: Path

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/server_info", timeout=30) as answer:
            info = json.load(answer)
        return info["internal_states"][0] | {"total": info["max_total_num_tokens"]}

    def resident_mib(self) -> float:
        return self.process.memory_info().rss / (1 << 20)

    def wait_until_idle(self, seconds: float = 60) -> dict[str, Any]:
        """The state once no request is running or waiting."""
        deadline = time.monotonic() + seconds
        while (state := self.state())["running_requests"] or state["waiting_requests"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"requests are still under way after {seconds:.0f} s: {state}")
            time.sleep(0.1)
        return state


@contextmanager
def serve(*flags: str) -> Iterator[Server]:
    """Run the engine with `flags` until the block is left."""
    with tempfile.TemporaryDirectory() as folder:
        ready, log = Path(folder, "ready"), Path(folder, "log")
        command = [sys.executable, "-m", "kernel_engine.launch_server", "--model-path", "tiny-chat", "--port", "0"]
        with log.open("w") as output:
            process = subprocess.Popen([*command, "--ready-file", str(ready), *flags], stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the engine did not start:\n{log.read_text()}")
                time.sleep(0.05)
            yield Server(json.loads(ready.read_text())["url"], psutil.Process(process.pid), log)
        finally:
            process.terminate()
            process.wait(timeout=120)  # on a busy machine a process may get its turn late


def verdict(failures: list[str]) -> int:
    """Print what went wrong, or that nothing did; the exit code."""
    for failure in failures[:20]:
        print("FAILED:", failure)
    print(f"{len(failures)} failures")
    return 1 if failures else 0
