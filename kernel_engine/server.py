"""SGLang's native HTTP routes over the engine.

Bad input is answered with 4xx and `{"error": {"message": ...}}`; a client that goes away has its requests aborted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from . import __version__, openapi
from .async_engine import AsyncEngine
from .errors import RequestError
from .metrics import EngineMetrics
from .openai.routes import OpenAIRoutes
from .openai.template import load_template
from .protocol import Answer, images_in, read_generate
from .request import Sequence
from .runner import Runner
from .server_args import ServerArgs
from .vision.pictures import PictureReader
from .vision.sources import Sources
from .web import DONE, RequireKey, event, read_json

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
        self._metrics = EngineMetrics(engine.engine, args.model_name)
        self._tokenizer = engine.engine.model.tokenizer
        self._runner = Runner(engine, args)
        self._template = load_template(args.chat_template, self._tokenizer)
        self._pictures = PictureReader(
            engine.engine.model.sight, Sources(args.media_folder(), args.allow_private_image_urls)
        )

    def app(self) -> ASGIApp:
        routes = [
            Route("/generate", self.generate, methods=["POST", "PUT"]),
            Route("/health", self.health),
            Route("/health_generate", self.health_generate),
            Route("/get_model_info", self.model_info),
            Route("/model_info", self.model_info),
            Route("/get_server_info", self.server_info),
            Route("/server_info", self.server_info),
            Route("/flush_cache", self.flush_cache, methods=["GET", "POST"]),
            Route("/abort_request", self.abort_request, methods=["POST"]),
            Route("/openapi.json", self.openapi),
            *OpenAIRoutes(self.engine, self._runner, self.args, self._template, self._pictures).routes(),
        ]
        handlers: Any = {RequestError: _refuse, HTTPException: _http_error, ClientDisconnect: _gone}
        if self.args.enable_metrics:
            routes.append(Route("/metrics", self.metrics))
        app = Starlette(routes=routes, exception_handlers=handlers)
        return RequireKey(app, key) if (key := self.args.secret()) else app

    async def generate(self, request: Request) -> Response:
        given = await read_json(request)
        shown = await self._pictures.read(images_in(given))
        body = read_generate(given, self._tokenizer, self.args.stream_interval, shown)
        decode = self._token_text if body.text_in_logprobs else None
        answers = [Answer(each, decode) for each in body.requests]
        self._runner.check(answers)
        if body.stream:
            return StreamingResponse(self._events(answers, body.batch), media_type="text/event-stream")
        await self._runner.finish(request, answers)
        found = [answer.json() for answer in answers]
        return JSONResponse(found if body.batch else found[0])

    async def _events(self, answers: list[Answer], batch: bool) -> AsyncGenerator[str, None]:
        """Server-sent events: one object per output, cumulative unless asked otherwise, then `[DONE]`."""
        try:
            async with contextlib.aclosing(self._runner.outputs(answers)) as outputs:
                async for index, _ in outputs:
                    answer = answers[index]
                    found = answer.news() if self.args.stream_output else answer.json()
                    yield event(found | ({"index": index} if batch else {}))
        except RequestError as error:
            yield event(_error_body(str(error)))
        yield DONE

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
                "has_image_understanding": model.sight is not None,
                "has_audio_understanding": False,
                "model_type": model.module.config.model_type,
                "architectures": model.module.config.architectures,
                "preferred_sampling_params": self.args.preferred_sampling(),
                "chat_template": self._template.source,
                "bos_token": self._tokenizer.bos_token,
                "eos_token": self._tokenizer.eos_token,
            }
        )

    async def server_info(self, request: Request) -> Response:
        engine = self.engine.engine
        state = {
            "last_gen_throughput": engine.log.last_throughput,
            "running_requests": len(engine.scheduler.running),
            "waiting_requests": len(engine.scheduler.waiting),
            "prefilling": [_prefill(sequence) for sequence in list(engine.scheduler.running) if sequence.prefilling],
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


def _prefill(sequence: Sequence) -> dict[str, int]:
    """How far a prompt is read."""
    return {
        "prompt_tokens": sequence.prompt_length,
        "cached_tokens": sequence.cached_tokens or 0,
        "computed_tokens": sequence.computed,
    }


def _error_body(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


async def _refuse(request: Request, error: RequestError) -> Response:
    return JSONResponse(_error_body(str(error)), error.status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    """Nobody reads this but the access log."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)
