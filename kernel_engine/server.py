"""SGLang's native HTTP routes over the engine.

Bad input is answered with 4xx and `{"error": {"message": ...}}`; a client that goes away has its requests aborted.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import __version__, openapi
from .async_engine import AsyncEngine
from .errors import RequestError
from .metrics import EngineMetrics
from .protocol import Answer, GenerateBody, read_generate
from .server_args import ServerArgs

logger = logging.getLogger(__name__)
MAX_BODY_BYTES = 64 << 20
HEALTH_SECONDS = 20.0
CLIENT_CLOSED_REQUEST = 499
FLUSHED = (
    "Cache flushed.\nPlease check backend logs for more details. "
    "(When there are running or waiting requests, the operation will not be performed.)\n"
)


class Server:
    """The routes. `ready` becomes true after warm-up; until then, health is 503."""

    def __init__(self, engine: AsyncEngine, args: ServerArgs):
        self.engine, self.args = engine, args
        self.ready = False
        self._created = int(time.time())
        self._metrics = EngineMetrics(engine.engine, args.model_name)
        self._tokenizer = engine.engine.model.tokenizer

    def app(self) -> ASGIApp:
        routes = [
            Route("/generate", self.generate, methods=["POST", "PUT"]),
            Route("/health", self.health),
            Route("/health_generate", self.health_generate),
            Route("/get_model_info", self.model_info),
            Route("/model_info", self.model_info),
            Route("/get_server_info", self.server_info),
            Route("/server_info", self.server_info),
            Route("/v1/models", self.models),
            Route("/flush_cache", self.flush_cache, methods=["GET", "POST"]),
            Route("/abort_request", self.abort_request, methods=["POST"]),
            Route("/openapi.json", self.openapi),
        ]
        handlers: Any = {RequestError: _refuse, HTTPException: _http_error, ClientDisconnect: _gone}
        if self.args.enable_metrics:
            routes.append(Route("/metrics", self.metrics))
        app = Starlette(routes=routes, exception_handlers=handlers)
        return RequireKey(app, key) if (key := self.args.secret()) else app

    async def generate(self, request: Request) -> Response:
        body = read_generate(await read_json(request), self._tokenizer, self.args.stream_interval)
        self.engine.check(body.requests)
        self._log_requests(body)
        if body.stream:
            return StreamingResponse(self._events(body), media_type="text/event-stream")
        finished = await unless_disconnected(request, self._answers(body))
        if finished is None:
            raise ClientDisconnect
        for answer in finished:
            if answer.error:
                raise answer.error
        answers = [answer.json() for answer in finished]
        return JSONResponse(answers if body.batch else answers[0])

    async def _answers(self, body: GenerateBody) -> list[Answer]:
        answers = self._blank_answers(body)
        async for index, output in self.engine.run(body.requests):
            answers[index].add(output)
            self._log_finished(answers[index])
        return answers

    async def _events(self, body: GenerateBody) -> AsyncGenerator[str, None]:
        """Server-sent events: one object per output, cumulative, then `[DONE]`."""
        answers = self._blank_answers(body)
        try:
            async with contextlib.aclosing(self.engine.run(body.requests)) as outputs:
                async for index, output in outputs:
                    answer = answers[index]
                    answer.add(output)
                    self._log_finished(answer)
                    if answer.error:
                        raise answer.error
                    found = answer.json() | ({"index": index} if body.batch else {})
                    yield f"data: {json.dumps(found, ensure_ascii=False)}\n\n"
        except RequestError as error:
            yield f"data: {json.dumps(_error_body(str(error)))}\n\n"
        yield "data: [DONE]\n\n"

    def _blank_answers(self, body: GenerateBody) -> list[Answer]:
        decode = self._token_text if body.text_in_logprobs else None
        return [Answer(request, decode) for request in body.requests]

    def _log_requests(self, body: GenerateBody) -> None:
        if self.args.log_requests:
            for request in body.requests:
                logger.info(
                    "Receive: rid=%s, prompt_tokens=%d, %s", request.rid, len(request.input_ids), request.params
                )

    def _log_finished(self, answer: Answer) -> None:
        if self.args.log_requests and answer.last and answer.last.finish_reason:
            logger.info("Finish: %s", answer.json()["meta_info"])

    def _token_text(self, token: int) -> str:
        return str(self._tokenizer.decode([token]))

    async def health(self, request: Request) -> Response:
        return Response(status_code=200 if self.ready and not self.engine.engine.failure else 503)

    async def health_generate(self, request: Request) -> Response:
        healthy = self.ready and await self.engine.is_healthy(HEALTH_SECONDS)
        return Response(status_code=200 if healthy else 503)

    async def model_info(self, request: Request) -> Response:
        model = self.engine.engine.model
        return JSONResponse(
            {
                "model_path": self.args.model_path,
                "tokenizer_path": self.args.tokenizer_path or self.args.model_path,
                "is_generation": True,
                "served_model_name": self.args.model_name,
                "weight_version": "default",
                "load_format": self.args.load_format,
                "has_image_understanding": False,
                "has_audio_understanding": False,
                "model_type": model.module.config.model_type,
                "architectures": model.module.config.architectures,
                "preferred_sampling_params": None,
            }
        )

    async def server_info(self, request: Request) -> Response:
        engine = self.engine.engine
        state = {
            "last_gen_throughput": engine.log.last_throughput,
            "running_requests": len(engine.scheduler.running),
            "waiting_requests": len(engine.scheduler.waiting),
            "free_tokens": engine.scheduler.pool.free_count,
            "cached_tokens": engine.scheduler.tree.size,
            "used_tokens": engine.scheduler.used,
            "steps": engine.log.steps,
            "step_seconds": engine.log.seconds,
        }
        sizes = {
            "max_total_num_tokens": engine.settings.slots,
            "max_running_requests": engine.settings.rows,
            "max_req_input_len": engine.context - 1,
        }
        info = self.args.public() | sizes | {"status": "ready" if self.ready else "starting", "version": __version__}
        return JSONResponse(info | {"internal_states": [state]})

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(openapi.document())

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        name = self.args.model_name
        model = {
            "id": name, "object": "model", "created": self._created, "owned_by": "kernel_engine", "root": name,
            "max_model_len": self.engine.engine.context,
        }  # fmt: skip
        return JSONResponse({"object": "list", "data": [model]})

    async def flush_cache(self, request: Request) -> Response:
        flushed = await asyncio.wrap_future(self.engine.engine.flush_cache())
        return PlainTextResponse(FLUSHED, 200 if flushed else 400)

    async def abort_request(self, request: Request) -> Response:
        body = await read_json(request)
        rid = body.get("rid") if isinstance(body, dict) else None
        if isinstance(body, dict) and body.get("abort_all") is True:
            rid = ""
        elif not isinstance(rid, str) or not rid:
            raise RequestError(
                'abort_request takes {"rid": "..."}, the beginning of request ids, or {"abort_all": true}.'
            )
        self.engine.engine.abort(rid, prefix=True)
        return Response(status_code=200)


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


async def unless_disconnected(request: Request, work: Awaitable[list[Answer]]) -> list[Answer] | None:
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


def _error_body(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


async def _refuse(request: Request, error: RequestError) -> Response:
    return JSONResponse(_error_body(str(error)), error.status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    """Nobody reads this but the access log."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)
