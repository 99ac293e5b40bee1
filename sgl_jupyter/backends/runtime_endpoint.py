"""Programs on a server that speaks SGLang's native HTTP protocol: kernel_engine, or SGLang itself.

All requests of an endpoint share one connection pool, which lives on the loop that uses it. Leaving a stream closes its
connection, which is how the server learns to stop.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from sgl_jupyter.backends.base import (
    BackendError,
    BackendUnreachable,
    BaseBackend,
    ChoiceScore,
    Chunk,
    SamplingParams,
    TokenLogprob,
)
from sgl_jupyter.backends.wire import error_sentence, generate_body, sse_events

_PATIENCE = httpx.Timeout(30.0, connect=5.0)  # seconds, for what a healthy server answers at once
_GENERATION = httpx.Timeout(None, connect=5.0)  # a generation takes its time; a connection that breaks is noticed
_LIMITS = httpx.Limits(max_connections=512, max_keepalive_connections=64, keepalive_expiry=2.0)  # servers wait 5 s


class RuntimeEndpoint(BaseBackend):
    """A server by its URL, such as "http://localhost:30000". It must be running.

    Args:
        base_url: where it listens.
        api_key: what it was started with as its API key.
        verify: for https, a file of certificate authorities to trust instead of the system's.
        chat_template_name: SGLang's name of a chat template, if the one found by the model's path is not right.

    Raises:
        ValueError: `base_url` is no http(s) URL.
        BackendUnreachable: nothing answers there (a `ConnectionError`).
        BackendError: what answers there is no such server, or the key is wrong.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        verify: str | None = None,
        chat_template_name: str | None = None,
    ) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f'base_url must be like "http://localhost:30000", not {base_url!r}')
        self.base_url = base_url.rstrip("/")
        self.chat_template_name = chat_template_name
        self._connection: dict[str, Any] = {
            "base_url": self.base_url,
            "headers": {"Authorization": f"Bearer {api_key}"} if api_key else {},
            "verify": ssl.create_default_context(cafile=verify) if url.scheme == "https" else False,
            "trust_env": url.hostname not in ("localhost", "127.0.0.1", "::1"),  # no proxy leads to this machine
        }
        self._client: tuple[asyncio.AbstractEventLoop, httpx.AsyncClient] | None = None
        self.model_path = str(self._ask("GET", "/get_model_info").json().get("model_path", ""))

    def __repr__(self) -> str:
        return f"RuntimeEndpoint({self.base_url!r}, model={self.model_path!r})"

    def flush_cache(self) -> None:
        self._ask("POST", "/flush_cache")

    def get_server_info(self) -> dict[str, Any]:
        return self._ask("GET", "/get_server_info").json()

    async def cache_prefix(self, prompt: str) -> None:
        await self._post({"text": prompt, "sampling_params": {"max_new_tokens": 0}})

    async def generate(self, prompt: str, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        sent = 0
        async for answer in self._stream(generate_body(prompt, params) | {"stream": True}):
            _raise_if_aborted(answer)
            text = answer["text"]  # all of it so far
            yield Chunk(text[sent:], answer["meta_info"])
            sent = max(sent, len(text))

    async def sample(self, prompt: str, params: SamplingParams) -> list[Chunk]:
        answers = await self._post(generate_body(prompt, params))
        for answer in answers:
            _raise_if_aborted(answer)
        return [Chunk(answer["text"], answer["meta_info"]) for answer in answers]

    async def score(self, prompt: str, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        """SGLang's sequence: have the prompt cached, then score prompt and choices in one batch.

        The prompt itself is part of the batch, to learn where its tokens end: a tokenizer may join the prompt's last characters
        with the choice's first ones, and such a joint token belongs to the choice.
        """
        nothing = {"max_new_tokens": 0, "temperature": 0.0}
        prefill = await self._post({"text": prompt, "sampling_params": nothing})
        length = prefill["meta_info"]["prompt_tokens"]
        texts = [prompt, *(prompt + choice for choice in choices)]
        ask = {"sampling_params": nothing, "return_logprob": True, "return_text_in_logprobs": True}
        for overlap in (1, 8, length):  # tokens of the prompt to look at: one, unless the tokens before differ too
            answers = await self._post({"text": texts, "logprob_start_len": max(length - overlap, 0)} | ask)
            end, *tails = [_input_logprobs(answer) for answer in answers]
            if all(tail[0][1] == end[0][1] for tail in tails):
                break
        given_prompt = [tail[_shared_ids(end, tail) :] for tail in tails]
        for choice, tokens in zip(choices, given_prompt, strict=True):
            if not tokens:
                raise BackendError(f"the choice {choice!r} adds no token to the prompt, so it has no probability")
        if not alone:
            return [ChoiceScore(tokens) for tokens in given_prompt]
        ids = [[token[1] for token in tokens] for tokens in given_prompt]
        answers = await self._post({"input_ids": ids, "logprob_start_len": 0} | ask)
        return [ChoiceScore(*pair) for pair in zip(given_prompt, map(_input_logprobs, answers), strict=True)]

    def _ask(self, method: str, path: str) -> httpx.Response:
        """A short question, asked and answered at once, from whatever thread."""
        with self._failures(), httpx.Client(timeout=_PATIENCE, **self._connection) as client:
            response = client.request(method, path)
            self._raise_if_refused(response)
            return response

    async def _post(self, body: dict[str, Any]) -> Any:
        with self._failures():
            response = await self._async_client().post("/generate", json=body)
            self._raise_if_refused(response)
            return response.json()

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The events of a streamed answer, to its end."""
        with self._failures():
            async with self._async_client().stream("POST", "/generate", json=body) as response:
                if response.is_error:
                    await response.aread()
                    self._raise_if_refused(response)
                complete = False
                async for data in sse_events(response.aiter_bytes()):
                    if data == b"[DONE]":
                        complete = True  # and read on to the end, so that the connection can be used again
                        continue
                    event = json.loads(data)
                    if "error" in event:
                        raise BackendError(error_sentence(event))
                    yield event
        if not complete:
            raise BackendUnreachable(f"{self.base_url} closed the connection before the answer was complete")

    def _async_client(self) -> httpx.AsyncClient:
        """The pool of the running loop. After a fork there is another loop, and so another pool."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            self._client = loop, httpx.AsyncClient(timeout=_GENERATION, limits=_LIMITS, **self._connection)
        return self._client[1]

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Say what failed, and where, instead of how the transport noticed it."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise BackendUnreachable(f"nothing answers at {self.base_url}: is the server running? ({error})") from error
        except httpx.TransportError as error:
            raise BackendUnreachable(f"{self.base_url} went away before its answer was complete ({error!r})") from error
        except json.JSONDecodeError as error:
            raise BackendError(f"{self.base_url} did not answer with JSON: {error}") from error

    def _raise_if_refused(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        try:
            sentence = error_sentence(response.json())
        except json.JSONDecodeError:
            sentence = response.text[:500]
        if response.status_code == 401:
            sentence += "; give the server's key as api_key=..."
        path = response.request.url.path
        raise BackendError(f"{sentence} (HTTP {response.status_code} from {self.base_url}{path})", response.status_code)


def _raise_if_aborted(answer: dict[str, Any]) -> None:
    reason = answer["meta_info"].get("finish_reason")
    if reason and reason.get("type") == "abort":
        raise BackendError(f"the server aborted the request: {reason.get('message')}", reason.get("status_code"))


def _input_logprobs(answer: dict[str, Any]) -> list[TokenLogprob]:
    _raise_if_aborted(answer)
    return [(logprob, token_id, text) for logprob, token_id, text in answer["meta_info"]["input_token_logprobs"]]


def _shared_ids(end: Sequence[TokenLogprob], tail: Sequence[TokenLogprob]) -> int:
    """How many tokens of `tail` are the prompt's own."""
    shared = 0
    for mine, theirs in zip(end, tail, strict=False):
        if mine[1] != theirs[1]:
            break
        shared += 1
    return shared
