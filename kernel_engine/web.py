"""What every route needs of HTTP: bodies as JSON, the key at the door, and noticing that a client has gone."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import RequestError

MAX_BODY_BYTES = 64 << 20
DONE = "data: [DONE]\n\n"
"""The event that ends every stream."""

T = TypeVar("T")


class RequireKey:
    """ASGI middleware: every path but `/health*` and `/metrics` needs `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, key: str):
        self._app, self._wanted = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(("/health", "/metrics")):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._wanted):
                await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def event(value: Any) -> str:
    """`value` as a server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def read_json(request: Request) -> Any:
    """The body as JSON; a `RequestError` says what is wrong with it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RequestError(f"the body is larger than {MAX_BODY_BYTES >> 20} MiB.", 413)
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON: {error}.") from None
    if b"\\ud" in body.lower() and not _is_unicode(value):
        raise RequestError("the body holds a lone surrogate, which is not valid Unicode.")
    return value


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T | None:
    """The result of `work`, or None, with `work` cancelled, if the client goes away before."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(request.receive))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnect(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
