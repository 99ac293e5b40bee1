"""A server whose engine breaks, hangs or is killed, as its clients and whoever started it see it."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .support import ServerProcess, running_server

FAIL, HANG = "!", "?"
"""Prompts that end with them make the model fail, or never come back, in the third step."""
WRAPPER = """
import sys, time
from kernel_engine import launch_server
from kernel_engine.model import Model

def forward(self, batch, cache):
    for sequence in (segment.sequence for segment in batch.segments):
        mark = self.tokenizer.decode(sequence.request.input_ids)[-1]
        if sequence.output_length == 2 and mark == "!":
            raise ZeroDivisionError("broken on purpose")
        while sequence.output_length == 2 and mark == "?":
            time.sleep(1)
    return compute(self, batch, cache)

compute = Model.forward
Model.forward = forward
sys.exit(launch_server.main())
"""


@pytest.fixture
def server(config_folder: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(WRAPPER)
    arguments = ["--model-path", str(config_folder), "--load-format", "dummy", "--watchdog-timeout", "2"]
    with running_server(tmp_path, *arguments, command=[sys.executable, str(wrapper)]) as started:
        yield started


class Client(threading.Thread):
    """Streams one request; `events` are the payloads that came, `error` is what ended the connection, if not its end."""

    def __init__(self, server: ServerProcess, text: str):
        super().__init__(daemon=True)
        self.events: list[str] = []
        self.error: httpx.TransportError | None = None
        self._server, self._text = server, text
        self.start()

    def run(self) -> None:
        params = {"temperature": 0, "max_new_tokens": 200, "ignore_eos": True}
        body = {"text": self._text, "stream": True, "sampling_params": params}
        try:
            with self._server.client() as client, client.stream("POST", "/generate", json=body) as response:
                self.events += [line.removeprefix("data: ") for line in response.iter_lines() if line]
        except httpx.TransportError as error:
            self.error = error

    def wait(self) -> None:
        self.join(30)
        assert not self.is_alive(), "the client hangs"


def statuses(server: ServerProcess) -> Iterator[int]:
    """What `/health` says, until nobody answers."""
    with contextlib.suppress(httpx.TransportError):
        while True:
            yield server.get("/health").status_code


def test_a_failure_reaches_every_stream_and_ends_the_process(server: ServerProcess):
    clients = [Client(server, text) for text in ("hello" + FAIL, "someone else", "a third")]
    for client in clients:
        client.wait()
    assert server.process.wait(30) == 1
    for client in clients:
        assert client.error is None
        assert client.events[-1] == "[DONE]"
        assert "broken on purpose" in json.loads(client.events[-2])["error"]["message"]
    assert "ZeroDivisionError" in server.log
    assert list(statuses(server)) == []


def test_a_hang_is_found_by_the_watchdog(server: ServerProcess):
    """It says where every thread is, and ends the process; clients see the connection end."""
    waiting = Client(server, "hello" + HANG)
    seen = list(statuses(server))
    assert server.process.wait(30) == 1
    waiting.wait()
    assert set(seen) <= {200, 503}
    assert "no step was finished for" in server.log
    assert "in forward" in server.log.split("no step was finished for")[1]
    assert waiting.error is not None or "[DONE]" not in waiting.events


def test_a_killed_engine_is_seen_at_once(server: ServerProcess):
    with server.client() as client:
        params = {"temperature": 0, "max_new_tokens": 200, "ignore_eos": True}
        body = {"text": "hello" + HANG, "stream": True, "sampling_params": params}
        with client.stream("POST", "/generate", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGKILL)
            began = time.monotonic()
            with pytest.raises(httpx.TransportError):
                list(lines)
    assert time.monotonic() - began < 20, "the client waited for a server that is gone"
    assert server.process.wait(10) == -signal.SIGKILL
    with pytest.raises(httpx.ConnectError):
        server.generate("hello")
