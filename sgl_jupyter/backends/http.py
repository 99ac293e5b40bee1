"""A small HTTP/1.1 client for many streamed requests to one server.

A general client costs some milliseconds of processor time a request when a hundred are open, which is more than a small model
needs for a token; this one costs a tenth of one. A connection whose answer was read to its end is used again; one that is left
before is closed, which is how the server learns to stop.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

from sgl_jupyter.backends.base import BackendUnreachable

CONNECT_SECONDS = 5.0
MAX_CONNECTIONS = 512
_KEEPALIVE = {
    "TCP_KEEPIDLE": 15,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
}  # so that a peer that vanishes is noticed in 30 s

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Response:
    """A status, and a body that is read as it arrives."""

    def __init__(self, url: str, head: bytes, reader: asyncio.StreamReader) -> None:
        status_line, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status_line.split(" ")[1])
        fields = (line.partition(":") for line in lines if line)
        self._headers = {name.lower(): value.strip().lower() for name, _, value in fields}
        self._url = url
        self._reader = reader
        self._complete = False

    @property
    def connection_is_free(self) -> bool:
        """Whether the connection can carry another request: the body has an end, and was read to it."""
        framed = "transfer-encoding" in self._headers or "content-length" in self._headers
        return self._complete and framed and self._headers.get("connection") != "close"

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.stream()])

    async def stream(self) -> AsyncIterator[bytes]:
        """The pieces of the body as they arrive. Raises BackendUnreachable if the connection ends before the body does."""
        reader = self._reader
        with _telling_of(self._url):
            if self._headers.get("transfer-encoding") == "chunked":
                while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                    yield await reader.readexactly(size)
                    await reader.readexactly(2)
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass  # trailers
            elif "content-length" in self._headers:
                yield await reader.readexactly(int(self._headers["content-length"]))
            else:
                while piece := await reader.read(65536):
                    yield piece
        self._complete = True


class HttpClient:
    """The connections to one server, for use on one event loop. Every request carries `headers`."""

    def __init__(self, base_url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> None:
        self._base_url = base_url
        self._url = urlsplit(base_url)
        self._tls = tls
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)

    @asynccontextmanager
    async def request(self, method: str, path: str, body: bytes = b"") -> AsyncIterator[Response]:
        """Send a request. Leaving the block before the body is read to its end gives the request up.

        Raises:
            BackendUnreachable: nothing listens there, or the connection broke.
        """
        host = self._url.netloc.rpartition("@")[2]
        message = (
            f"{method} {self._url.path}{path} HTTP/1.1\r\nHost: {host}\r\n{self._headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        async with self._slots:
            connection, response = await self._send(message)
            try:
                yield response
            finally:
                if response.connection_is_free:
                    self._idle.append(connection)
                else:
                    connection[1].close()

    async def _send(self, message: bytes) -> tuple[Connection, Response]:
        """Send on an idle connection, or on a new one: servers close idle ones, and may do so in this very moment."""
        while self._idle:
            connection = self._idle.pop()
            try:
                return connection, await self._exchange(connection, message)
            except BackendUnreachable:
                continue
        connection = await self._connect()
        return connection, await self._exchange(connection, message)

    async def _exchange(self, connection: Connection, message: bytes) -> Response:
        reader, writer = connection
        try:
            with _telling_of(self._base_url):
                writer.write(message)
                await writer.drain()
                return Response(self._base_url, await reader.readuntil(b"\r\n\r\n"), reader)
        except BaseException:
            writer.close()
            raise

    async def _connect(self) -> Connection:
        host, port = self._url.hostname, self._url.port or (443 if self._tls else 80)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(host, port, ssl=self._tls)
        except OSError as error:  # TimeoutError is one
            reason = str(error) or f"no connection in {CONNECT_SECONDS:.0f} s"
            raise BackendUnreachable(
                f"nothing answers at {self._base_url}: is the server running? ({reason})"
            ) from error
        connected: socket.socket = writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return reader, writer


@contextmanager
def _telling_of(url: str) -> Iterator[None]:
    """Say which server broke off, instead of where in the protocol that was noticed."""
    try:
        yield
    except (OSError, asyncio.IncompleteReadError) as error:
        raise BackendUnreachable(f"{url} went away before its answer was complete ({error})") from error
    except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
        raise BackendUnreachable(f"{url} does not speak HTTP/1.1 ({error})") from error
