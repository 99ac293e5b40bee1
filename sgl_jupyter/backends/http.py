"""A small HTTP/1.1 client for many streamed requests to one server.

A general client costs 2 to 3 ms of processor time a request at a hundred requests at once, which is more than a small model
needs for a token; this one costs under 0.1 ms. A connection whose answer was read to its end is used again; one that is left
before is closed, which is how the server learns to stop.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import SplitResult

from sgl_jupyter.backends.base import BackendUnreachable

CONNECT_SECONDS = 5.0
MAX_CONNECTIONS = 512
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # seconds, seconds, probes


class Response:
    """A status, and a body that is read as it arrives."""

    def __init__(self, status: int, headers: dict[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.complete = False
        """The body was read to its end."""
        self._headers = headers
        self._reader = reader

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request."""
        framed = "transfer-encoding" in self._headers or "content-length" in self._headers
        return self.complete and framed and self._headers.get("connection", "").lower() != "close"

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self.stream()])

    async def stream(self) -> AsyncIterator[bytes]:
        """The pieces of the body as they arrive. Raises IncompleteReadError if the connection ends before the body does."""
        if "chunked" in self._headers.get("transfer-encoding", "").lower():
            while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            while await self._reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers
        elif "content-length" in self._headers:
            yield await self._reader.readexactly(int(self._headers["content-length"]))
        else:
            while piece := await self._reader.read(65536):
                yield piece
        self.complete = True


class HttpClient:
    """Connections to the server at `url`, on the loop that first uses them; they send `headers` with every request."""

    def __init__(self, url: SplitResult, headers: dict[str, str], tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._tls = tls
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in {"Host": url.netloc, **headers}.items())
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)

    @asynccontextmanager
    async def request(self, method: str, path: str, body: bytes = b"") -> AsyncIterator[Response]:
        """Send a request. Leaving the block before the response is read to its end gives the request up.

        Raises:
            BackendUnreachable: nothing listens there, or the connection broke, now or while the response is read.
        """
        head = f"{method} {self._url.path}{path} HTTP/1.1\r\n{self._fixed}Content-Type: application/json\r\n"
        message = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        async with self._slots:
            try:
                reader, writer, response = await self._send(message)
                try:
                    yield response
                finally:
                    if response.reusable:
                        self._idle.append((reader, writer))
                    else:
                        writer.close()
            except (OSError, asyncio.IncompleteReadError) as error:
                if isinstance(error, BackendUnreachable):
                    raise
                raise BackendUnreachable(
                    f"{self._url.geturl()} went away before its answer was complete ({error or type(error).__name__})"
                ) from error
            except (ValueError, asyncio.LimitOverrunError) as error:
                raise BackendUnreachable(f"{self._url.geturl()} does not speak HTTP ({error})") from error
