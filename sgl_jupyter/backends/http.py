"""HTTP to one server, many streamed requests at a time, over aiohttp.

(aiohttp rather than httpx: with a hundred requests open, httpx costs milliseconds of processor time a request, which is more
than a small model needs for a token.) A request that is left before its answer was read closes its connection, which is how
the server learns to stop.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp

from sgl_jupyter.backends.base import BackendUnreachable

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 2.0
"""A connection idle for longer is not used again: servers close idle ones, SGLang's after five seconds."""
MAX_CONNECTIONS = 512
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A peer that vanishes without a word is noticed in 30 s."""


class Response:
    """A status, and a body that is read as it arrives."""

    def __init__(self, url: str, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self._url, self._content = url, response.content

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.stream()])

    async def stream(self) -> AsyncIterator[bytes]:
        """The pieces of the body as they arrive. Raises BackendUnreachable if the connection ends before the body does."""
        with _telling_of(self._url):
            async for piece in self._content.iter_any():
                yield piece


class HttpClient:
    """The connections to one server, for use on the running event loop. Every request carries `headers`."""

    def __init__(self, base_url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> None:
        self._base_url = base_url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS, keepalive_timeout=IDLE_SECONDS, ssl=tls or True, socket_factory=_open_socket
            ),
            headers={"Content-Type": "application/json", **headers},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )

    async def aclose(self) -> None:
        await self._session.close()

    @asynccontextmanager
    async def request(self, method: str, path: str, body: bytes = b"") -> AsyncIterator[Response]:
        """Send a request. Leaving the block before the body is read to its end gives the request up.

        Raises:
            BackendUnreachable: nothing listens there, or the connection broke.
        """
        with _telling_of(self._base_url):
            response = await self._session.request(method, self._base_url + path, data=body, allow_redirects=False)
        async with response:
            yield Response(self._base_url, response)


def _open_socket(address: Any) -> socket.socket:
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return opened


@contextmanager
def _telling_of(url: str) -> Iterator[None]:
    """Say which server it was, instead of where in the protocol the failure was noticed."""
    try:
        yield
    except (aiohttp.ClientConnectorSSLError, aiohttp.ClientConnectorCertificateError) as error:
        advice = "for a certificate of your own, give its file as verify=..."
        raise BackendUnreachable(f"{url} is not trusted: {advice} ({error})") from error
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise BackendUnreachable(f"nothing answers at {url}: is the server running? ({error})") from error
    except aiohttp.ClientResponseError as error:
        raise BackendUnreachable(f"{url} does not speak HTTP/1.1 ({error.message.strip()})") from error
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError) as error:
        raise BackendUnreachable(f"{url} went away before its answer was complete") from error
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise BackendUnreachable(f"{url} went away before its answer was complete ({error!r})") from error
