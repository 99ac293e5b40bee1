"""A server process for tests: started as a user would, and never left behind."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 120.0
COMMAND = [sys.executable, "-m", "kernel_engine.launch_server"]


@dataclass
class ServerProcess:
    process: subprocess.Popen[bytes]
    url: str
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def post(self, path: str, **body: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body)

    def get(self, path: str) -> httpx.Response:
        with self.client() as client:
            return client.get(path)

    def generate(self, text: str | list[str] = "The capital of France is", **options: Any) -> Any:
        """The answer to a greedy `/generate` call of a few tokens; `options` other than the body's are sampling params."""
        names = {"stream", "rid", "return_logprob", "logprob_start_len", "top_logprobs_num", "return_text_in_logprobs"}
        body = {name: options.pop(name) for name in names & set(options)}
        params = {"temperature": 0, "max_new_tokens": 8} | options
        response = self.post("/generate", text=text, sampling_params=params, **body)
        assert response.status_code == 200, response.text
        return response.json()

    def state(self) -> dict[str, int]:
        return self.get("/server_info").json()["internal_states"][0]

    def wait_until(self, wanted: Any) -> dict[str, int]:
        """Poll the server's state until `wanted(state)`; fails after a while."""
        limit = time.monotonic() + 20
        while not wanted(state := self.state()):
            assert time.monotonic() < limit, state
            time.sleep(0.02)
        return state

    def wait_until_idle(self) -> None:
        self.wait_until(lambda s: s["running_requests"] == s["waiting_requests"] == s["used_tokens"] == 0)


@contextlib.contextmanager
def running_server(folder: Path, *arguments: str, command: list[str] = COMMAND) -> Iterator[ServerProcess]:
    """Start a server on a free port, wait until it is ready, and end it afterwards."""
    ready, log_path = folder / "ready.json", folder / "log.txt"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", "0", "--ready-file", str(ready), *arguments], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        limit = time.monotonic() + START_SECONDS
        while not ready.exists():
            assert process.poll() is None, log_path.read_text()
            assert time.monotonic() < limit, log_path.read_text()
            time.sleep(0.05)
        yield ServerProcess(process, json.loads(ready.read_text())["url"], log_path)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
