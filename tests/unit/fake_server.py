"""A small HTTP server that speaks SGLang's native protocol and fails on demand.

Its "model" continues every prompt with `Hello, world!`; its tokens are words with the space before them, and a token's
log-probability is minus a tenth of its length, less 1 where nothing of the prompt precedes it.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

ANSWER = ["Hello", ", wor", "ld!"]
VOCABULARY: dict[str, int] = {}


def tokens_of(text: str) -> list[str]:
    return re.findall(r" ?\w+|\W", text)


def token_id(token: str) -> int:
    return VOCABULARY.setdefault(token, len(VOCABULARY))


def sse(*events: dict[str, Any] | bytes, done: bool = True) -> Response:
    """A streamed answer: the events, with `[DONE]` unless the server is to end before. A bytes event is sent as it is."""

    async def stream() -> AsyncIterator[bytes]:
        for event in events:
            yield (
                event
                if isinstance(event, bytes)
                else b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"
            )
        if done:
            yield b"data: [DONE]\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


class FakeServer:
    """`respond`, where set, answers `/generate` instead. `bodies` are all that it was asked; `headers` the last ones."""

    def __init__(self) -> None:
        self.url = ""
        self.respond: Callable[[dict[str, Any]], Response] | None = None
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.connections: set[object] = set()
        self.headers: dict[str, str] = {}
        self.api_key: str | None = None
        self.left_early = threading.Event()

    async def get_model_info(self, request: Request) -> Response:
        self.headers = dict(request.headers)
        if self.api_key and self.headers.get("authorization") != f"Bearer {self.api_key}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        return JSONResponse({"model_path": "tiny-chat", "tokenizer_path": "tiny-chat", "is_generation": True})

    async def get_server_info(self, request: Request) -> Response:
        return JSONResponse({"status": "ready"})

    async def flush_cache(self, request: Request) -> Response:
        self.paths.append(f"{request.method} {request.url.path}")
        return PlainTextResponse("Cache flushed.\n")

    async def generate(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.connections.add(request.client)
        if self.respond is not None:
            return self.respond(body)
        if body.get("stream"):
            return sse(*[self._answer("".join(ANSWER[:i])) for i in range(1, 4)])
        if body["sampling_params"]["max_new_tokens"]:
            return JSONResponse([self._answer("".join(ANSWER)) for _ in range(body["sampling_params"]["n"])])
        if "input_ids" in body:
            words = {number: word for word, number in VOCABULARY.items()}
            return JSONResponse([self._scored([words[i] for i in ids], body) for ids in body["input_ids"]])
        if isinstance(body["text"], list):
            return JSONResponse([self._scored(tokens_of(text), body) for text in body["text"]])
        return JSONResponse(self._scored(tokens_of(body["text"]), body))

    def endless(self, body: dict[str, Any]) -> Response:
        """Begins an answer and never ends it; notes when the client goes away."""

        async def stream() -> AsyncIterator[bytes]:
            try:
                yield b"data: " + json.dumps(self._answer("Hel")).encode() + b"\n\n"
                await asyncio.sleep(3600)
            finally:
                self.left_early.set()

        return StreamingResponse(stream(), media_type="text/event-stream")

    def _answer(self, text: str) -> dict[str, Any]:
        finish_reason = {"type": "stop", "matched": 0} if text == "".join(ANSWER) else None
        return {"text": text, "meta_info": {"prompt_tokens": 3, "completion_tokens": 2, "finish_reason": finish_reason}}

    def _scored(self, tokens: list[str], body: dict[str, Any]) -> dict[str, Any]:
        start = body.get("logprob_start_len", len(tokens))
        alone = 1.0 if "input_ids" in body else 0.0
        logprobs = [[-len(token) / 10 - alone, token_id(token), token] for token in tokens[start:]]
        for first in logprobs[:1]:
            first[0] = None  # SGLang gives no probability to the first token asked for
        return {"text": "", "meta_info": {"prompt_tokens": len(tokens), "input_token_logprobs": logprobs}}


@contextmanager
def serve() -> Iterator[FakeServer]:
    """A running server, on a free port of this machine."""
    fake = FakeServer()
    routes = [
        Route("/get_model_info", fake.get_model_info),
        Route("/health_generate", fake.get_model_info),
        Route("/get_server_info", fake.get_server_info),
        Route("/flush_cache", fake.flush_cache, methods=["POST"]),
        Route("/generate", fake.generate, methods=["POST"]),
    ]
    with running(routes) as fake.url:
        yield fake


@contextmanager
def running(routes: Sequence[Route], **options: Any) -> Iterator[str]:
    """The URL of a server with these routes, in a thread of its own; `options` are uvicorn's."""
    config = uvicorn.Config(
        Starlette(routes=routes),
        port=0,
        log_level="critical",
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=1,
        **options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"{'https' if config.is_ssl else 'http'}://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)
