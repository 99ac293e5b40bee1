"""What the backends over vendors' own clients share: the client's package, a program's prompt as messages, and constraints made of
JSON schemas where a server knows no others.

What a backend cannot do is an `UnsupportedFeature`; nothing that a program asks for is dropped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import sys
from collections.abc import AsyncGenerator, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from sgl_jupyter.backends.base import (
    BackendError,
    BackendUnreachable,
    BaseBackend,
    Chunk,
    Prompt,
    SamplingParams,
    UnsupportedFeature,
)
from sgl_jupyter.backends.wire import error_sentence
from sgl_jupyter.lang.ir import REGEX_BOOL, REGEX_FLOAT, REGEX_INT, REGEX_STR

T = TypeVar("T")

NOTHING_ASKED = SamplingParams()
JSON_OVERHEAD = 32
"""Tokens, at most, of the object around a single value."""
ROOM_TO_THINK = 4096
"""Tokens that a vendor's model may spend before it makes a choice: many think first, and have that count."""

_DTYPE_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    REGEX_INT: {"type": "integer"},
    REGEX_FLOAT: {"type": "number"},
    REGEX_BOOL: {"type": "boolean"},
    REGEX_STR: {"type": "string"},
}
"""What `dtype` asks for, which reaches a backend as a regular expression, as a JSON schema."""


def require(package: str, extra: str) -> Any:
    """The package's module. Raises ImportError, with what to type, if it is not installed."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ImportError(f"{package} is not installed: pip install 'sgl-jupyter[{extra}]'", name=package) from error


class ApiBackend(BaseBackend):
    """A model behind an API, by its vendor's asynchronous client.

    A kind of API says in `_stream` how a prompt is continued. `_features` are the fields of `SamplingParams` that it has a use
    for, and `_continues` tells whether the model can go on with an assistant message that the program has begun. Choices are
    made at `_choice_temperature`.
    """

    is_chat_model = True
    sees_images = True
    scores_choices = False
    chat_template = "default"  # for whoever reads the text: the server is sent messages

    _features: Collection[str] = ()
    _continues: bool = False
    _choice_temperature: float = 0.0

    def __init__(self, model_name: str) -> None:
        self.model_name = self.model_path = model_name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_name!r})"

    async def generate(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        schema = _DTYPE_SCHEMAS.get(params.regex or "")
        if schema and "regex" not in self._features:
            value, meta_info = await self._value(prompt, params, schema)
            yield Chunk(_literal(value), meta_info)
            return
        self._refuse_all_but(params, self._features)
        async with aclosing(self._stream(prompt, params)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def sample(self, prompt: Prompt, params: SamplingParams) -> list[Chunk]:
        """Requests of one answer each: not every server gives several to one."""
        single = dataclasses.replace(params, n=1)
        seeds = [None if params.seed is None else params.seed + i for i in range(params.n)]
        return await together([whole(self.generate(prompt, dataclasses.replace(single, seed=seed))) for seed in seeds])

    async def choose(self, prompt: Prompt, choices: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """What the model answers where it may answer nothing else."""
        params = SamplingParams(temperature=self._choice_temperature, max_new_tokens=ROOM_TO_THINK)
        return await self._value(prompt, params, {"type": "string", "enum": list(choices)})

    def _stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        raise NotImplementedError

    async def _value(
        self, prompt: Prompt, params: SamplingParams, schema: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """A value that obeys `schema`. It comes in an object, since an object is what every vendor's constraint yields."""
        if "json_schema" not in self._features:
            raise self._unsupported("dtype and choices, which need a constraint by regex or JSON schema")
        if prompt.content.strip():
            raise self._unsupported("dtype and choices after other text in the same assistant message")
        object_of = {
            "type": "object",
            "properties": {"value": schema},
            "required": ["value"],
            "additionalProperties": False,
        }
        constrained = dataclasses.replace(
            params,
            regex=None,
            stop=(),  # they may stand in the object
            json_schema=json.dumps(object_of),
            max_new_tokens=params.max_new_tokens + JSON_OVERHEAD,
        )
        answer = await whole(self.generate(prompt, constrained))
        try:
            return json.loads(answer.text)["value"], answer.meta_info
        except (ValueError, TypeError, KeyError) as error:
            raise BackendError(f"{self!r} answered {answer.text[:100]!r}, where a value was asked for") from error

    def _unsupported(self, feature: str) -> UnsupportedFeature:
        return UnsupportedFeature(self, feature)

    def _refuse_all_but(self, params: SamplingParams, features: Collection[str]) -> None:
        for field in dataclasses.fields(params):
            name = field.name
            if name not in features and name != "n" and getattr(params, name) != getattr(NOTHING_ASKED, name):
                raise self._unsupported(f"{name}={getattr(params, name)!r}")

    def _conversation(self, prompt: Prompt) -> list[Mapping[str, Any]]:
        """The messages that the model answers; the last is the assistant's where the model is to go on with it.

        Raises:
            UnsupportedFeature: the prompt does not end in an assistant message, or in one that cannot be continued.
        """
        if getattr(prompt, "role", None) != "assistant":
            raise self._unsupported("gen outside of an assistant message: write assistant(gen(...))")
        if not prompt.content.strip():
            return list(prompt.messages)
        if not self._continues:
            raise self._unsupported(
                "text before gen in the same assistant message: gen must be right after assistant_begin, "
                "unless the program is a @function(num_api_spec_tokens=128)"
            )
        return [*prompt.messages, {"role": "assistant", "content": prompt.content}]


def finish_reason(kind: str, completion_tokens: int | None, matched: Any = None) -> dict[str, Any]:
    """Why an answer ended, in SGLang's form."""
    if kind == "length":
        return {"type": "length", "length": completion_tokens}
    return {"type": kind, "matched": matched} if kind == "stop" else {"type": kind}


@contextmanager
def errors_of(sdk: Any, place: str) -> Iterator[None]:
    """Tell the failures of a client that is built as OpenAI's is in the way that every backend tells them."""
    try:
        yield
    except BackendError:
        raise
    except sdk.APITimeoutError as error:
        raise BackendUnreachable(f"{place} did not answer in time") from error
    except sdk.APIConnectionError as error:
        raise BackendUnreachable(f"no connection to {place}: {error.__cause__ or error}") from error
    except sdk.APIStatusError as error:
        raise refusal(error.body or error.message, error.status_code, place) from error
    except sdk.APIError as error:
        raise BackendError(f"{error_sentence(error.body or error.message)} (from {place})") from error
    except transport_errors() as error:  # older clients let them through once an answer has begun
        raise BackendUnreachable(f"no connection to {place}: {error!r}") from error
    except json.JSONDecodeError as error:
        raise BackendError(f"{place} did not answer with JSON, but with {error.doc[:60]!r}") from error


def refusal(body: Any, status: int, place: str) -> BackendError:
    """What a server says, with an error's status, for not doing what it was asked to."""
    advice = "; give the key as api_key=..." if status == 401 else ""
    return BackendError(f"{error_sentence(body)}{advice} (HTTP {status} from {place})", status)


def transport_errors() -> tuple[type[Exception], ...]:
    """What the HTTP packages that vendors' clients use raise, as far as they are loaded."""
    names = {"httpx": "HTTPError", "httpx2": "HTTPError", "aiohttp": "ClientError"}
    return (OSError, *(getattr(sys.modules[module], name) for module, name in names.items() if module in sys.modules))


def data_url(url: str) -> tuple[str, str] | None:
    """The media type and the base64 of a `data:` URL; None for one that leads elsewhere."""
    head, _, content = url.partition(";base64,")
    return (head.removeprefix("data:"), content) if head.startswith("data:") else None


def broken_off(place: str) -> BackendUnreachable:
    return BackendUnreachable(f"{place} closed the connection before the answer was complete")


async def together(requests: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The answers to all of the requests. If one fails, the others are given up, and have ended when this raises."""
    tasks = [asyncio.ensure_future(request) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def whole(chunks: AsyncGenerator[Chunk, None]) -> Chunk:
    """A streamed answer in one piece."""
    text, meta_info = "", {}
    async with aclosing(chunks):
        async for chunk in chunks:
            text, meta_info = text + chunk.text, chunk.meta_info
    return Chunk(text, meta_info)


def _literal(value: Any) -> str:
    """A value as the text of a generation with a dtype: Python's, but for a string, which stands in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
