"""The handlers of OpenAI's routes. Errors have OpenAI's form, and a client that goes away has its requests aborted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ..async_engine import AsyncEngine
from ..errors import RequestError
from ..protocol import typed
from ..runner import Runner
from ..server_args import ServerArgs
from ..vision.pictures import PictureReader
from ..web import DONE, event, read_json
from .chat import Chat, read_chat
from .completions import Completions, read_completions
from .fields import as_object, check_names, usage
from .messages import images_in, read_prompt, read_tools
from .settings import read_settings
from .template import ChatTemplate

Handler = Callable[[Request], Awaitable[Response]]
TOKENIZE_FIELDS = {
    "model", "prompt", "add_special_tokens", "messages", "tools", "tool_choice", "continue_final_message",
    "chat_template_kwargs",
}  # fmt: skip


class OpenAIRoutes:
    """Raises `LoadError` if the server's settings name a parser that does not exist."""

    def __init__(
        self, engine: AsyncEngine, runner: Runner, args: ServerArgs, template: ChatTemplate, pictures: PictureReader
    ):
        self._runner, self._args, self._pictures = runner, args, pictures
        self._context = engine.engine.context
        self._settings = read_settings(engine.engine.model, args, template)
        self._tokenizer = self._settings.tokenizer
        self._created = int(time.time())

    def routes(self) -> list[Route]:
        posts: dict[str, Handler] = {
            "/v1/completions": self.completions, "/v1/chat/completions": self.chat, "/tokenize": self.tokenize,
            "/v1/tokenize": self.tokenize, "/detokenize": self.detokenize, "/v1/detokenize": self.detokenize,
        }  # fmt: skip
        return [
            *(Route(path, _with_errors(handler), methods=["POST"]) for path, handler in posts.items()),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", _with_errors(self.model)),
        ]

    async def completions(self, request: Request) -> Response:
        shown = await self._pictures.read([])
        return await self._answer(request, read_completions(await read_json(request), self._settings, shown))

    async def chat(self, request: Request) -> Response:
        body = as_object(await read_json(request))
        shown = await self._pictures.read(images_in(body))
        return await self._answer(request, read_chat(body, self._settings, shown))

    async def _answer(self, request: Request, asked: Completions | Chat) -> Response:
        self._runner.check(asked.answers)
        if asked.call.stream_interval is not None:
            return StreamingResponse(self._events(asked), media_type="text/event-stream")
        await self._runner.finish(request, asked.answers)
        return JSONResponse(asked.whole() | {"usage": self._usage(asked)})

    async def _events(self, asked: Completions | Chat) -> AsyncGenerator[str, None]:
        try:
            async with contextlib.aclosing(self._runner.outputs(asked.answers)) as outputs:
                async for index, output in outputs:
                    for chunk in asked.chunks(index, output):
                        yield event(chunk)
            if asked.call.include_usage:
                yield event(asked.chunk([]) | {"usage": self._usage(asked)})
        except RequestError as error:
            yield event(error_body(error))
        yield DONE

    def _usage(self, asked: Completions | Chat) -> dict[str, Any]:
        return usage(asked.answers, asked.call.params.n, cache_report=self._args.enable_cache_report)

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": list(self._models().values())})

    async def model(self, request: Request) -> Response:
        name, models = request.path_params["name"], self._models()
        if name not in models:
            raise RequestError(f"the model {name!r} does not exist; these do: {', '.join(models)}.", 404, "model")
        return JSONResponse(models[name])

    def _models(self) -> dict[str, dict[str, Any]]:
        """The served model and its adapters, by name."""
        served = self._settings.model
        common = {
            "object": "model", "created": self._created, "owned_by": "kernel_engine", "root": served,
            "max_model_len": self._context,
        }  # fmt: skip
        parents = {served: None} | dict.fromkeys(self._settings.adapters, served)
        return {name: {"id": name} | common | {"parent": parent} for name, parent in parents.items()}

    async def tokenize(self, request: Request) -> Response:
        """Token ids of a prompt, of each of several, or of a chat body's messages as the template writes them."""
        body = as_object(await read_json(request))
        check_names(body, TOKENIZE_FIELDS)
        prompt = body.get("prompt")
        special = typed("add_special_tokens", body.get("add_special_tokens"), bool, True)
        if "messages" in body and prompt is not None:
            raise RequestError("give prompt or messages, not both.", param="prompt")
        if "messages" in body:
            tokens: Any = await self._tokens_of_messages(body)
        elif isinstance(prompt, str) or (isinstance(prompt, list) and all(isinstance(each, str) for each in prompt)):
            tokens = self._tokenizer(prompt, add_special_tokens=special)["input_ids"] if prompt else []
        else:
            raise RequestError("prompt must be a string or an array of strings.", param="prompt")
        count = [len(each) for each in tokens] if isinstance(prompt, list) else len(tokens)
        return JSONResponse({"tokens": tokens, "count": count, "max_model_len": self._context})

    async def _tokens_of_messages(self, body: dict[str, Any]) -> list[int]:
        template, images = self._settings.template, images_in(body)
        shown = await self._pictures.read(images)
        prompt = read_prompt(body, read_tools(body), template, sees=shown.sight is not None)
        return shown.prompt(template.encode(prompt), images).ids

    async def detokenize(self, request: Request) -> Response:
        """The text of an array of token ids, or of each of several."""
        body = as_object(await read_json(request))
        check_names(body, {"model", "tokens", "skip_special_tokens"})
        tokens = body.get("tokens")
        skip = typed("skip_special_tokens", body.get("skip_special_tokens"), bool, True)
        if not isinstance(tokens, list):
            raise RequestError("tokens must be an array of token ids, or an array of such.", param="tokens")
        if not any(isinstance(each, list) for each in tokens):
            return JSONResponse({"text": self._decode(tokens, skip)})
        return JSONResponse({"text": [self._decode(each, skip) for each in tokens]})

    def _decode(self, tokens: Any, skip: bool) -> str:
        size = len(self._tokenizer)
        if not isinstance(tokens, list) or not all(type(token) is int and 0 <= token < size for token in tokens):
            raise RequestError(f"tokens must be token ids, integers in [0, {size}).", param="tokens")
        return str(self._tokenizer.decode(tokens, skip_special_tokens=skip))


def error_body(error: RequestError) -> dict[str, Any]:
    """OpenAI's form of an error."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    code = "model_not_found" if error.status == 404 else None
    return {"error": {"message": str(error), "type": kind, "param": error.param, "code": code}}


def _with_errors(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except RequestError as error:
            return JSONResponse(error_body(error), error.status)

    return answer
