"""A kernel's end of a connection to one supervisor: the latest registry entry comes in, commands go out.

A link that is a lease keeps the engine alive until this process ends, whatever becomes of the objects that refer to it.
No lease passes to a forked child, whose copy would keep the engine alive after the kernel's death; and no child uses a link
of its parent's, whose messages it would take away.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import socket
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Self

from .registry import Entry


class Link:
    def __init__(self, sock: socket.socket, *, is_lease: bool = False) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._received = b""
        self._latest: Entry | None = None
        self._has_ended = False
        self._process = os.getpid()
        self._finalizer = weakref.finalize(self, sock.close)
        if is_lease:
            self._keep()

    @classmethod
    def connect(cls, path: Path) -> Self:
        """Raises OSError if no supervisor listens at `path`."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def hold(self, user: str) -> None:
        """Make this link a lease, held for `user`."""
        self._keep()
        self.send("lease", user=user)

    @property
    def is_open(self) -> bool:
        """False once either side is gone, and in a forked child."""
        return self._process == os.getpid() and self._socket.fileno() != -1

    @property
    def has_ended(self) -> bool:
        """True once the supervisor is gone and all that it said was received."""
        return self._has_ended

    def latest(self) -> Entry | None:
        """The last entry that has arrived; None before the first. Does not block."""
        if not self.is_open:  # in a forked child, the lock may be held by a thread that is not there
            return self._latest
        with self._lock:
            while self._receive():
                pass
        if self._has_ended:
            self.close()
        return self._latest

    def _keep(self) -> None:
        os.register_at_fork(after_in_child=self._finalizer)
        atexit.register(self.close)  # also what keeps this object, and so the lease, until the process ends

    def _receive(self) -> bool:
        """Take in what has arrived; False if nothing more is there."""
        try:
            data = self._socket.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        *lines, self._received = (self._received + data).split(b"\n")
        if lines:
            self._latest = Entry.from_json(lines[-1])
        self._has_ended = self._has_ended or not data
        return bool(data)

    def wait(self, timeout: float) -> None:
        """Block until something has arrived or the supervisor is gone, for at most `timeout` seconds."""
        with selectors.DefaultSelector() as selector, suppress(ValueError):  # another thread may just have closed it
            selector.register(self._socket, selectors.EVENT_READ)
            selector.select(timeout)

    def send(self, op: str, **fields: str) -> None:
        self.send_line(json.dumps({"op": op, **fields}))

    def send_line(self, line: str) -> None:
        """Send one message. What comes too late, to a supervisor that is gone, is no error."""
        with suppress(OSError):
            self._socket.sendall(line.encode() + b"\n")

    def close(self) -> None:
        self._socket.close()
        atexit.unregister(self.close)
