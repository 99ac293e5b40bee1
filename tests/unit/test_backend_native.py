"""The native routes as JSON, asked from any thread and any loop; what is left early is ended at the server."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest

from sgl_jupyter.backends.base import BackendError
from sgl_jupyter.backends.native import NativeClient
from sgl_jupyter.backends.runtime_endpoint import RuntimeEndpoint

from .fake_server import FakeServer, serve, sse

BODY = {"text": "p", "sampling_params": {"max_new_tokens": 9, "n": 1}}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serve() as server:
        yield server


@pytest.fixture
def client(server: FakeServer) -> NativeClient:
    return NativeClient(RuntimeEndpoint(server.url))


def test_the_answer_is_the_servers_json(server: FakeServer, client: NativeClient) -> None:
    assert client.post("/generate", BODY)[0]["text"] == "Hello, world!"
    assert [event["text"] for event in client.stream(BODY)] == ["Hello", "Hello, wor", "Hello, world!"]
    assert server.bodies == [BODY, BODY | {"stream": True}]


def test_coroutines_get_the_same_on_a_loop_of_their_own(client: NativeClient) -> None:
    async def ask() -> list[str]:
        answer = await client.apost("/generate", BODY)
        return [answer[0]["text"], *[event["text"] async for event in client.astream(BODY)]]

    assert asyncio.run(ask()) == ["Hello, world!", "Hello", "Hello, wor", "Hello, world!"]


def test_an_error_in_a_stream_is_raised(server: FakeServer, client: NativeClient) -> None:
    server.respond = lambda body: sse({"text": "Hel", "meta_info": {}}, {"error": {"message": "no more room"}})
    events = client.stream(BODY)
    assert next(events)["text"] == "Hel"
    with pytest.raises(BackendError, match="no more room"):
        next(events)


def test_a_stream_that_is_left_ends_at_the_server(server: FakeServer, client: NativeClient) -> None:
    server.respond = server.endless
    for event in client.stream(BODY):
        assert event["text"] == "Hel"
        break
    assert server.left_early.wait(5)


def test_a_coroutine_that_is_cancelled_ends_its_request(server: FakeServer, client: NativeClient) -> None:
    server.respond = server.endless

    async def use() -> None:
        events = client.astream(BODY)
        await anext(events)
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await events.aclose()

    asyncio.run(use())
    assert server.left_early.wait(5)


def test_an_interrupt_ends_the_request_that_is_waited_for(server: FakeServer, client: NativeClient) -> None:
    server.respond = server.endless
    events = client.stream(BODY)
    next(events)
    threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        next(events)
    assert server.left_early.wait(5)
