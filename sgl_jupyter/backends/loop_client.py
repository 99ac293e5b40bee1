"""Clients whose connections live on the event loop that uses them."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import wait
from typing import Generic, TypeVar

CLOSING_SECONDS = 0.2
C = TypeVar("C")


class LoopClient(Generic[C]):
    """A client for each loop that asks for one: after a fork of the process there is another loop, and another client.

    Args:
        make: makes one, on its loop.
        close: closes it, on its loop, when this object is gone or the process ends.
        first: one that is made already. What it misses was then told to whoever asked for it.
    """

    def __init__(self, make: Callable[[], C], close: Callable[[C], Awaitable[None]], first: C | None = None) -> None:
        self._make, self._close, self._first = make, close, first
        self._made: tuple[asyncio.AbstractEventLoop, C] | None = None

    def here(self) -> C:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        if self._made is None or self._made[0] is not loop:
            client, self._first = self._first or self._make(), None
            self._made = loop, client
            weakref.finalize(self, _close_on, loop, self._close, client)
        return self._made[1]


def _close_on(loop: asyncio.AbstractEventLoop, close: Callable[[C], Awaitable[None]], client: C) -> None:
    async def closed() -> None:
        await close(client)

    if loop.is_running():
        wait([asyncio.run_coroutine_threadsafe(closed(), loop)], CLOSING_SECONDS)
