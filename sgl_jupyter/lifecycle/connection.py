"""The supervisor's end of a connection to one kernel. Standard library only, as the supervisor is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

MAX_MESSAGE = 1 << 20


class Connection:
    """One end of a socket on which each line is a message."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.user: str | None = None
        """Who holds a lease by this connection; None where it is no lease."""
        self._received = b""

    def lines(self) -> Iterator[bytes]:
        """Receive once, then yield each line that is complete. Raises EOFError when the other side is gone."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        self._received += data
        if not data or len(self._received) > MAX_MESSAGE:
            raise EOFError
        *complete, self._received = self._received.split(b"\n")
        yield from complete

    def send(self, message: str) -> None:
        # A peer that is gone is noticed by its end of stream; one that never reads loses news, not its lease.
        with suppress(OSError):
            self.socket.send(message.encode() + b"\n", socket.MSG_DONTWAIT)
