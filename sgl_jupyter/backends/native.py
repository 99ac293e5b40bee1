"""SGLang's native generation as JSON in and JSON out: blocking, awaited, or streamed, from any thread and any event loop.

All requests run on the background loop, so the blocking calls work inside a running loop too, such as a notebook's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

from sgl_jupyter.backends.runtime_endpoint import RuntimeEndpoint
from sgl_jupyter.lang.loop import background_loop

T = TypeVar("T")
END: Any = object()


class NativeClient:
    """The native routes of one server. Every failure is a `BackendError` with the server's sentence.

    Leaving an iterator early, cancelling an await, or interrupting a blocking call ends the request at the server.
    """

    def __init__(self, endpoint: RuntimeEndpoint) -> None:
        self._endpoint = endpoint

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return _block_on(self._endpoint.post(path, body))

    async def apost(self, path: str, body: dict[str, Any]) -> Any:
        return await asyncio.wrap_future(_submit(self._endpoint.post(path, body)))

    def stream(self, body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        """The events of a streamed `/generate`, each with all of the text so far."""
        events = _Events(self._endpoint.stream(body | {"stream": True}))
        try:
            while (event := _block_on(events.next())) is not END:
                yield event
        finally:
            _block_on(events.close())

    async def astream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """`stream` for coroutines."""
        events = _Events(self._endpoint.stream(body | {"stream": True}))
        try:
            while (event := await asyncio.wrap_future(_submit(events.next()))) is not END:
                yield event
        finally:
            await asyncio.wrap_future(_submit(events.close()))


class _Events:
    """A stream that is read on the background loop, for somebody elsewhere."""

    def __init__(self, events: AsyncGenerator[dict[str, Any], None]) -> None:
        self._events = events
        self._reading = asyncio.Lock()  # a read that is cancelled takes a moment to end, and nothing is closed before

    async def next(self) -> dict[str, Any]:
        async with self._reading:
            return await anext(self._events, END)

    async def close(self) -> None:
        async with self._reading:
            await self._events.aclose()


def _submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    return asyncio.run_coroutine_threadsafe(coroutine, background_loop())


def _block_on(coroutine: Coroutine[Any, Any, T]) -> T:
    future = _submit(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
