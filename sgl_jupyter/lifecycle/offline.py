"""`Runtime` and `Engine`: SGLang's two ways to an engine that is made by a constructor. Both start what `launch` starts.

They differ from SGLang's in that the engine is always a process of its own, which ends with this one, and in that the blocking
calls work inside a running event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cached_property
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack, cast

from .handle import launch

if TYPE_CHECKING:
    from ..backends.native import NativeClient
    from ..backends.runtime_endpoint import RuntimeEndpoint

Json = dict[str, Any]


class ServerArgs(SimpleNamespace):
    """An engine's model and flags as one value, for `Engine(server_args=...)` and `Runtime(server_args=...)`.

    Args:
        model_path: a bundled name, a folder, or a hub id.
        flags: the engine's flags, and what else `launch` takes. What is not given is left to the engine.
    """

    def __init__(self, model_path: str, **flags: Any) -> None:
        super().__init__(model_path=model_path, **flags)


class _Owner:
    """An engine that is ready from the constructor on."""

    def __init__(self, server_args: ServerArgs, timeout: float | None) -> None:
        flags = dict(vars(server_args))
        if flags.get("engine") == "vllm":
            raise ValueError(f"{type(self).__name__} needs SGLang's native routes, which vLLM has not: use launch()")
        self.server_args = server_args
        self.model = str(flags.pop("model_path"))
        self._handle = launch(self.model, **flags)
        try:
            self._handle.wait(timeout)
        except BaseException:
            self._handle.terminate()
            raise

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._handle!r})"

    @property
    def url(self) -> str:
        return str(self._handle.url)

    @property
    def pid(self) -> int:
        return self._handle.pid

    @property
    def endpoint(self) -> RuntimeEndpoint:
        """The backend that runs programs on this engine."""
        return cast("RuntimeEndpoint", self._handle.endpoint)

    @cached_property
    def _native(self) -> NativeClient:
        from ..backends.native import NativeClient

        return NativeClient(self.endpoint)

    def shutdown(self) -> None:
        """End the engine. May be called any number of times."""
        self._handle.terminate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()


class GenerateOptions(TypedDict, total=False):
    """The fields of `/generate` that SGLang's two classes take by name, each for all prompts or as a list with one for each."""

    image_data: Any
    return_logprob: bool | list[bool] | None
    logprob_start_len: int | list[int] | None
    top_logprobs_num: int | list[int] | None
    token_ids_logprob: list[int] | list[list[int]] | None
    lora_path: str | list[str] | None


class Runtime(_Owner):
    """A server, made to run programs on: `set_default_backend(Runtime(model_path=...))`.

    There is no `get_tokenizer`, since nothing here imports a tokenizer's library; transformers' AutoTokenizer has it.

    Args:
        model_path: a bundled name, a folder, or a hub id.
        log_level: of the engine's log.
        launch_timeout: seconds in which the engine has to be ready.
        server_args: the model and the flags as one value, instead of by name.
        flags: the engine's flags, and what else `launch` takes; `engine="sglang"` runs SGLang's own server.

    Raises what `launch` and `EngineHandle.wait` raise.
    """

    def __init__(
        self,
        model_path: str | None = None,
        log_level: str = "error",
        launch_timeout: float = 300.0,
        *,
        server_args: ServerArgs | None = None,
        **flags: Any,
    ) -> None:
        super().__init__(_joined(server_args, model_path, {"log_level": log_level, **flags}), launch_timeout)
        self.generate_url = f"{self.url}/generate"

    def cache_prefix(self, prefix: str) -> None:
        """Have `prefix` computed, so that requests which begin with it share the work."""
        self._native.post("/generate", {"text": prefix, "sampling_params": {"max_new_tokens": 0}})

    def generate(
        self,
        prompt: str | list[str],
        sampling_params: Json | None = None,
        **options: Unpack[GenerateOptions],
    ) -> str:
        """What the server answers on `/generate`, as the text of its JSON. It is `Engine.generate` that answers with objects."""
        return json.dumps(self._native.post("/generate", _body(prompt, sampling_params, None, options)))

    async def async_generate(self, prompt: str, sampling_params: Json | None = None) -> AsyncGenerator[str, None]:
        """The answer's text, piece by piece."""
        sent = 0
        async with aclosing(self._native.astream(_body(prompt, sampling_params, None, {}))) as events:
            async for event in events:
                if piece := event["text"][sent:]:
                    yield piece
                    sent += len(piece)

    add_request = async_generate

    def encode(self, prompt: str | list[str]) -> str:
        """What the server answers on `/encode`, as the text of its JSON; for models that embed text."""
        return json.dumps(self._native.post("/encode", {"text": prompt}))

    async def get_server_info(self) -> Json:
        """The server's arguments and state."""
        return await asyncio.to_thread(self.endpoint.get_server_info)


class Engine(_Owner):
    """An engine for texts without programs: `Engine(model_path=...).generate(["a", "b"], {"temperature": 0})`.

    Args:
        model_path: a bundled name, a folder, or a hub id.
        log_level: of the engine's log.
        server_args: the model and the flags as one value, instead of by name.
        flags: the engine's flags, and what else `launch` takes; `engine="sglang"` runs SGLang's own server.

    Raises what `launch` and `EngineHandle.wait` raise.
    """

    def __init__(
        self,
        model_path: str | None = None,
        *,
        log_level: str = "error",
        server_args: ServerArgs | None = None,
        **flags: Any,
    ) -> None:
        super().__init__(_joined(server_args, model_path, {"log_level": log_level, **flags}), None)

    def generate(
        self,
        prompt: str | list[str] | None = None,
        sampling_params: Json | list[Json] | None = None,
        input_ids: list[int] | list[list[int]] | None = None,
        *,
        stream: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> Any:
        """Continue one prompt or several, given as text or as token ids.

        Returns what `/generate` answers: an object with `text` and `meta_info`, or a list of them; with `stream`, an iterator of
        objects, each with all of the text so far, and with an `index` where there are several prompts.

        Raises:
            BackendError: the engine refused the request. The message says why.
        """
        body = _body(prompt, sampling_params, input_ids, options)
        return self._native.stream(body) if stream else self._native.post("/generate", body)

    async def async_generate(
        self,
        prompt: str | list[str] | None = None,
        sampling_params: Json | list[Json] | None = None,
        input_ids: list[int] | list[list[int]] | None = None,
        *,
        stream: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> Any:
        """`generate` for coroutines; with `stream`, what is awaited is an asynchronous iterator."""
        body = _body(prompt, sampling_params, input_ids, options)
        return self._native.astream(body) if stream else await self._native.apost("/generate", body)

    def encode(self, prompt: str | list[str]) -> Any:
        """What `/encode` answers; for models that embed text."""
        return self._native.post("/encode", {"text": prompt})

    async def async_encode(self, prompt: str | list[str]) -> Any:
        """`encode` for coroutines."""
        return await self._native.apost("/encode", {"text": prompt})

    def flush_cache(self) -> None:
        """Forget all cached prefixes."""
        self.endpoint.flush_cache()

    def get_server_info(self) -> Json:
        """The engine's arguments and state."""
        return self.endpoint.get_server_info()


def _joined(server_args: ServerArgs | None, model_path: str | None, flags: Json) -> ServerArgs:
    """What was given as one value and what was given by name. Raises TypeError where there is no model."""
    if model_path is not None:
        flags["model_path"] = model_path
    return ServerArgs(**flags | vars(server_args or SimpleNamespace()))


def _body(prompt: Any, sampling_params: Any, input_ids: Any, options: GenerateOptions) -> Json:
    if unknown := options.keys() - GenerateOptions.__annotations__.keys():
        known = ", ".join(GenerateOptions.__annotations__)
        raise TypeError(
            f"generate() has no option {', '.join(sorted(unknown))}: how to sample goes into sampling_params, and the options "
            f"are {known}"
        )
    fields = {"text": prompt, "input_ids": input_ids, "sampling_params": sampling_params, **options}
    return {name: value for name, value in fields.items() if value is not None}
