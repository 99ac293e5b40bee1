"""The HTTP client: every form of a body, connections that are used again, and connections that break."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import pytest

from sgl_jupyter.backends.base import BackendUnreachable
from sgl_jupyter.backends.http import HttpClient

from .fake_backend import within

T = TypeVar("T")
FIXED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;extension\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nhello"


class RawServer:
    """Answers the requests of each connection with the next of its answers, then closes it. It keeps what was asked."""

    def __init__(self, *connections: list[bytes]) -> None:
        self._connections = list(connections)
        self.accepted = 0
        self.asked: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = self._connections[self.accepted]
        self.accepted += 1
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head)
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
            for byte in range(len(answer)):  # in the smallest possible pieces
                writer.write(answer[byte : byte + 1])
                await writer.drain()
        writer.close()


def with_client(server: RawServer, use: Callable[[HttpClient], Awaitable[T]]) -> T:
    async def main() -> T:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        client = HttpClient(f"http://127.0.0.1:{port}/base", {"Authorization": "Bearer key"}, None)
        async with listening, aclosing(client):
            return await use(client)

    return within(10, asyncio.run, main())


async def ask(client: HttpClient, body: bytes = b"{}") -> bytes:
    async with client.request("POST", "/generate", body) as response:
        return await response.read()


@pytest.mark.parametrize("answer", [FIXED, CHUNKED, UNTIL_CLOSE], ids=["fixed", "chunked", "until close"])
def test_every_form_of_a_body_is_read_whole(answer: bytes) -> None:
    server = RawServer([answer])
    assert with_client(server, ask) == b"hello"
    request_line, *headers = server.asked[0].decode().split("\r\n")
    assert request_line == "POST /base/generate HTTP/1.1"
    assert {"Authorization: Bearer key", "Content-Length: 2"} <= set(headers)


def test_a_connection_is_used_again_once_its_answer_was_read() -> None:
    async def three(client: HttpClient) -> list[bytes]:
        return [await ask(client) for _ in range(3)]

    server = RawServer([FIXED, CHUNKED, FIXED])
    assert with_client(server, three) == [b"hello"] * 3
    assert server.accepted == 1


@pytest.mark.parametrize(
    "answer", [UNTIL_CLOSE, FIXED.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")], ids=["until close", "close"]
)
def test_a_connection_that_the_server_ends_is_not_used_again(answer: bytes) -> None:
    async def two(client: HttpClient) -> list[bytes]:
        return [await ask(client), await ask(client)]

    assert with_client(RawServer([answer], [FIXED]), two) == [b"hello"] * 2


def test_an_idle_connection_that_the_server_has_closed_is_replaced() -> None:
    async def later(client: HttpClient) -> list[bytes]:
        first = await ask(client)
        await asyncio.sleep(0.05)
        return [first, await ask(client)]

    server = RawServer([FIXED], [FIXED])
    assert with_client(server, later) == [b"hello"] * 2
    assert server.accepted == 2


def test_leaving_a_response_before_its_end_closes_the_connection() -> None:
    async def leave(client: HttpClient) -> None:
        async with client.request("POST", "/generate") as response:
            async for _ in response.stream():
                break

    until_client_goes(CHUNKED[:-20], leave)


@pytest.mark.parametrize("answer", [FIXED, CHUNKED], ids=["fixed", "chunked"])
@pytest.mark.parametrize("cut", [0, 20, -1])
def test_an_answer_that_is_cut_off_is_an_error(answer: bytes, cut: int) -> None:
    with pytest.raises(BackendUnreachable, match="went away before its answer was complete"):
        with_client(RawServer([answer[:cut]]), ask)


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", CHUNKED.replace(b"3\r\n", b"x\r\n", 1)])
def test_what_is_no_http_is_an_error(answer: bytes) -> None:
    with pytest.raises(BackendUnreachable):
        with_client(RawServer([answer]), ask)


def test_cancelling_closes_the_connection() -> None:
    async def cancel(client: HttpClient) -> None:
        asking = asyncio.create_task(ask(client))
        await asyncio.sleep(0.05)
        asking.cancel()

    until_client_goes(b"", cancel)


def until_client_goes(answer: bytes, use: Callable[[HttpClient], Awaitable[None]]) -> None:
    """Use a client of a server that begins to answer and then waits for the client to go."""

    async def main() -> None:
        closed = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            await reader.read()
            closed.set()
            writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        async with aclosing(HttpClient(f"http://127.0.0.1:{port}", {}, None)) as client, listening:
            await use(client)
            await closed.wait()

    within(10, asyncio.run, main())


def test_a_port_where_nothing_listens_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

    async def main() -> None:
        async with aclosing(HttpClient(url, {}, None)) as client:
            await ask(client)

    with pytest.raises(BackendUnreachable, match=f"nothing answers at {url}"):
        within(10, asyncio.run, main())
