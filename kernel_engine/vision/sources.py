"""Where an image is, and its file's bytes: in the request itself, at a URL, or in a folder that the server may read.

Requests are not trusted. URLs are http or https, are fetched within limits of size, time and redirects, and lead to no private
address unless that is allowed; the address that is checked is the one that is connected to.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..errors import RequestError

if TYPE_CHECKING:
    import aiohttp

MAX_FILE_BYTES = 20 << 20
FETCH_SECONDS = 10.0
MAX_REDIRECTS = 3
VIDEO = "video:"
"""Begins a video: the PNG files of its frames one after another, in base64, as SGLang's client sends it."""
JPEG = "/9j/"
"""How the file of a photograph begins in base64: like a path."""
PNG, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class ForbiddenAddress(OSError):
    """A host that may not be asked."""


@dataclass(frozen=True, slots=True)
class Sources:
    """`folder` is where files may be read, if anywhere. Raises `RequestError`, 400, for what cannot be had."""

    folder: Path | None = None
    private_urls: bool = False

    async def files(self, name: str) -> list[bytes]:
        """The file of the image that `name` is (a URL, a data URI, base64, or a path), or those of a video's frames."""
        if name.startswith(VIDEO):
            return _frames(_decoded(name.removeprefix(VIDEO)))
        if name.startswith(("http://", "https://")):
            return [await self._fetch(name)]
        if name.startswith("data:"):
            return [_data_uri(name)]
        if name.startswith(JPEG):
            return [_decoded(name)]
        if name.startswith(("/", "./", "../", "~", "file:")):
            return [self._read(name)]
        return [_decoded(name)]

    def _read(self, name: str) -> bytes:
        if self.folder is None:
            raise RequestError("images are not read from files here: send the file in base64, or start the server with "
                               "--allowed-local-media-path.")  # fmt: skip
        path = Path(unquote(urlsplit(name).path) if name.startswith("file:") else name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise RequestError(f"the image {name!r:.200} is not in the folder that this server may read.")
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise _too_large(name)
            return path.read_bytes()
        except OSError as error:
            raise RequestError(f"the image {name!r:.200} cannot be read: {error.strerror}.") from None

    async def _fetch(self, url: str) -> bytes:
        import aiohttp  # which takes long, and most requests bring their images

        connector = aiohttp.TCPConnector(socket_factory=_any_socket if self.private_urls else _public_socket)
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get(url, max_redirects=MAX_REDIRECTS) as response,
            ):
                if response.status != 200:
                    raise _unreachable(url, f"its server answers {response.status}")
                return await _bounded(response, url)
        except TimeoutError:
            raise _unreachable(url, f"it did not come within {FETCH_SECONDS:.0f} s") from None
        except aiohttp.TooManyRedirects:
            raise _unreachable(url, f"it is redirected more than {MAX_REDIRECTS} times") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unreachable(url, _reason(error)) from None


async def _bounded(response: aiohttp.ClientResponse, url: str) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        content += chunk
        if len(content) > MAX_FILE_BYTES:
            raise _too_large(url)
    return bytes(content)


def _any_socket(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    return socket.socket(family, kind, protocol)


def _public_socket(address: Any) -> socket.socket:
    host = address[4][0]
    if not _is_public(host):
        raise ForbiddenAddress(f"{host} is a private address, which this server does not ask")
    return _any_socket(address)


def _is_public(host: str) -> bool:
    """Whether the numeric address `host` is one of the whole internet's, also where it is written as IPv6."""
    address = ipaddress.ip_address(host.split("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    return address.is_global and not address.is_multicast


def _data_uri(name: str) -> bytes:
    head, found, data = name.partition(",")
    if not found or not head.endswith(";base64"):
        raise RequestError("a data URI of an image must be data:image/...;base64,...")
    return _decoded(data)


def _decoded(text: str) -> bytes:
    if len(text) > MAX_FILE_BYTES * 4 / 3 + 4:
        raise _too_large(text)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"image_data holds neither a URL, a data URI nor base64: {text!r:.40}.") from None


def _frames(content: bytes) -> list[bytes]:
    frames = [frame + PNG_END for frame in content.split(PNG_END)[:-1]]
    if not frames or not all(frame.startswith(PNG) for frame in frames):
        raise RequestError("a video must be the PNG files of its frames, one after another.")
    return frames


def _too_large(name: str) -> RequestError:
    return RequestError(f"the image {name!r:.60} is larger than {MAX_FILE_BYTES >> 20} MiB.")


def _unreachable(url: str, reason: str) -> RequestError:
    return RequestError(f"the image at {url!r:.200} cannot be fetched: {reason}.")


def _reason(error: BaseException) -> str:
    """What is known of a failed connection; aiohttp hides the cause."""
    cause = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return (str(cause) or str(error) or type(error).__name__).rstrip(".")
