"""A real ipykernel with the scripted backend at hand, and what its cells put out, in the terms of a notebook's reader."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
SETUP = """
%load_ext sgl_jupyter
from sgl_jupyter import *
from sgl_jupyter.backends.base import BackendError
from scripted_backend import ScriptedBackend
"""
LIMIT = 240
"""Seconds after which a cell is held to hang."""


@dataclass
class Cell:
    """A cell that was run: its reply and its messages in the order in which they came."""

    reply: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)

    def of_type(self, *types: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages if message["msg_type"] in types]

    @property
    def printed(self) -> str:
        return "".join(content["text"] for content in self.of_type("stream"))

    @property
    def shown(self) -> list[str]:
        """The plain text of the display and of each of its updates."""
        return [c["data"]["text/plain"] for c in self.of_type("display_data", "update_display_data")]

    @property
    def traceback(self) -> str:
        return re.sub(r"\x1b\[[\d;]*m", "", "\n".join(self.reply.get("traceback", [])))


class NotebookKernel:
    """Runs cells. `watched` is whether the front end says that a user sits before it."""

    def __init__(self, folder: Path, python_path: Sequence[Path]) -> None:
        paths = [*python_path, HERE, REPOSITORY]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "JUPYTER_RUNTIME_DIR": str(folder)}
        self.late: list[dict[str, Any]] = []
        """Messages of cells that had ended, in the order in which they came."""
        self.manager = KernelManager()
        self.manager.start_kernel(env=environment, cwd=str(folder))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=LIMIT)

    @property
    def pid(self) -> int:
        return self.manager.provisioner.pid  # pyright: ignore

    def start(self, code: str, watched: bool = True) -> str:
        """Send a cell; return its id without waiting for it."""
        return self.client.execute(code, allow_stdin=watched)

    def finish(self, request: str, interrupt_at: str | None = None, again_after: float | None = None) -> Cell:
        """Wait for the end of a cell; with `interrupt_at`, interrupt it once that text is shown, and maybe again."""
        messages: list[dict[str, Any]] = []
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            message = self.client.get_iopub_msg(timeout=LIMIT)
            if message["parent_header"].get("msg_id") != request:
                self.late.append(message)
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                break
            if message["msg_type"] != "status" and message["msg_type"] != "execute_input":
                messages.append(message)
            if interrupt_at is not None and interrupt_at in str(content.get("data", content.get("text"))):
                self.manager.interrupt_kernel()
                interrupt_at = None
                if again_after is not None:
                    threading.Timer(again_after, self.manager.interrupt_kernel).start()
        while True:
            reply = self.client.get_shell_msg(timeout=LIMIT)
            if reply["parent_header"]["msg_id"] == request:
                return Cell(reply["content"], messages)

    def run(self, code: str, watched: bool = True) -> Cell:
        return self.finish(self.start(code, watched))

    def answers(self, *answers: str) -> None:
        """Have the backend give these answers, each written as Python, to the generations to come."""
        cell = self.run(f"backend = ScriptedBackend({', '.join(answers)}); set_default_backend(backend)")
        assert cell.reply["status"] == "ok", cell.traceback

    def value(self, expression: str) -> str:
        """What the kernel prints for `expression`."""
        cell = self.run(f"print({expression}, end='')")
        assert cell.reply["status"] == "ok", cell.traceback
        return cell.printed

    def late_update(self, text: str) -> dict[str, Any]:
        """The first message that puts `text` into the output of a cell that has ended; waits for it."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            message = self.late.pop(0) if self.late else self.client.get_iopub_msg(timeout=LIMIT)
            if text in message["content"].get("data", {}).get("text/plain", ""):
                return message
        raise TimeoutError(f"no output with {text!r}")

    def completions(self, code: str) -> list[str]:
        """What Tab offers at the end of `code`."""
        request = self.client.complete(code)
        while True:
            reply = self.client.get_shell_msg(timeout=LIMIT)
            if reply["parent_header"]["msg_id"] == request:
                return reply["content"]["matches"]

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@contextmanager
def scripted_kernel(folder: Path) -> Iterator[NotebookKernel]:
    """A kernel in which the language, the magics and the scripted backend are loaded."""
    kernel = NotebookKernel(folder, [])
    try:
        setup = kernel.run(SETUP)
        assert setup.reply["status"] == "ok", setup.traceback
        yield kernel
    finally:
        kernel.close()
