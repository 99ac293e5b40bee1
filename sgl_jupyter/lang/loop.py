"""The background event loop on which all states of a process generate.

One daemon thread, started by the first use and left running; it never runs user code, so it is never blocked. The kernel's
own loop stays untouched, which is why blocking reads work inside a running loop.
"""

from __future__ import annotations

import asyncio
import os
import threading


class LoopThread:
    """A lazily started event loop in a daemon thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="sgl-jupyter", daemon=True).start()
            return self._loop

    def forget(self) -> None:
        """After a fork the child has no such thread: it starts its own when it needs one."""
        self._lock = threading.Lock()
        self._loop = None


_background = LoopThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_background.forget)


def background_loop() -> asyncio.AbstractEventLoop:
    """The process's background loop, running."""
    return _background.get()
