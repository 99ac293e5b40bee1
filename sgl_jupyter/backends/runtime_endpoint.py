"""Programs on a server that speaks SGLang's native HTTP protocol: kernel_engine, or SGLang itself.

All requests of an endpoint share their connections, which live on the loop that uses them.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from sgl_jupyter.backends.base import (
    BackendError,
    BackendUnreachable,
    BaseBackend,
    ChoiceScore,
    Chunk,
    Prompt,
    SamplingParams,
    TokenLogprob,
)
from sgl_jupyter.backends.http import HttpClient, Response
from sgl_jupyter.backends.loop_client import LoopClient
from sgl_jupyter.backends.model_info import model_template
from sgl_jupyter.backends.wire import error_sentence, generate_body, images_field, sse_events
from sgl_jupyter.lang.loop import background_loop

SETTLING_SECONDS = 1.0
"""A server may still be putting away a request whose answer is complete."""
PATIENCE = 30.0
"""Seconds for what a healthy server answers at once. A generation takes the time it takes."""


class RuntimeEndpoint(BaseBackend):
    """A server by its URL, such as "http://localhost:30000". It must be running. It is reached directly, through no proxy.

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
        self.chat_template = chat_template_name
        headers = {"Authorization": f"Bearer {api_key.strip()}"} if api_key else {}
        tls = ssl.create_default_context(cafile=verify) if url.scheme == "https" else None
        self._clients = LoopClient(partial(HttpClient, self.base_url, headers, tls), HttpClient.aclose)
        info = _parsed(self._ask_either("/get_model_info", "/model_info"))
        self.model_path = str(info.get("model_path", ""))
        self.model_type = str(info.get("model_type") or "")
        self.model_template = model_template(info)
        self.sees_images = info.get("has_image_understanding") is not False

    def __repr__(self) -> str:
        return f"RuntimeEndpoint({self.base_url!r}, model={self.model_path!r})"

    def flush_cache(self) -> None:
        """Raises BackendError if the server goes on working on requests: one that has just ended is waited for."""
        deadline = time.monotonic() + SETTLING_SECONDS
        while True:
            try:
                self._ask("POST", "/flush_cache")
                return
            except BackendError as error:
                if error.status != 400 or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def abort_all(self) -> None:
        self._ask("POST", "/abort_request", {"rid": "", "abort_all": True})  # older servers: every id that begins so

    def get_server_info(self) -> dict[str, Any]:
        return _parsed(self._ask_either("/get_server_info", "/server_info"))

    async def cache_prefix(self, prompt: Prompt) -> None:
        await self.post("/generate", {"text": prompt, "sampling_params": {"max_new_tokens": 0}, **images_field(prompt)})

    async def generate(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        sent = 0
        async with aclosing(self.stream(generate_body(prompt, params) | {"stream": True})) as answers:
            async for answer in answers:
                _raise_if_aborted(answer)
                text = answer["text"]  # all of it so far
                yield Chunk(text[sent:], answer["meta_info"])
                sent = max(sent, len(text))

    async def sample(self, prompt: Prompt, params: SamplingParams) -> list[Chunk]:
        answers = await self.post("/generate", generate_body(prompt, params))
        for answer in answers:
            _raise_if_aborted(answer)
        return [Chunk(answer["text"], answer["meta_info"]) for answer in answers]

    async def score(self, prompt: Prompt, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        """SGLang's sequence: have the prompt cached, then score prompt and choices in one batch.

        The prompt itself is part of the batch, to learn where its tokens end: a tokenizer may join the prompt's last characters
        with the choice's first ones, and such a joint token belongs to the choice.
        """
        nothing = {"max_new_tokens": 0, "temperature": 0.0}
        images = images_field(prompt)
        prefill = await self.post("/generate", {"text": prompt, "sampling_params": nothing, **images})
        length = prefill["meta_info"]["prompt_tokens"]
        texts = [prompt, *(prompt + choice for choice in choices)]
        ask = {"sampling_params": nothing, "return_logprob": True, "return_text_in_logprobs": True}
        shown = {name: [value] * len(texts) for name, value in images.items()}
        for overlap in (1, 8, length):  # tokens of the prompt to look at: one, unless the tokens before differ too
            answers = await self.post(
                "/generate", {"text": texts, "logprob_start_len": max(length - overlap, 0)} | ask | shown
            )
            end, *tails = [_input_logprobs(answer) for answer in answers]
            if all(_shared_ids(end, tail) for tail in tails):
                break
        given_prompt = [tail[_shared_ids(end, tail) :] for tail in tails]
        for choice, tokens in zip(choices, given_prompt, strict=True):
            if not tokens:
                raise BackendError(f"the choice {choice!r} adds no token to the prompt, so it has no probability")
        if not alone:
            return [ChoiceScore(tokens) for tokens in given_prompt]
        ids = [[token[1] for token in tokens] for tokens in given_prompt]
        answers = await self.post("/generate", {"input_ids": ids, "logprob_start_len": 0} | ask)
        return [ChoiceScore(*pair) for pair in zip(given_prompt, map(_input_logprobs, answers), strict=True)]

    def _ask_either(self, path: str, newer_path: str) -> bytes:
        """What older servers tell at one path, and newer ones at another."""
        try:
            return self._ask("GET", path)
        except BackendError as error:
            if error.status != 404:
                raise
            return self._ask("GET", newer_path)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        """A short question from whatever thread; blocks until it is answered."""

        async def ask() -> bytes:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await self._request(method, path, body)
            except TimeoutError as error:
                raise BackendUnreachable(f"{self.base_url} did not answer {path} in {PATIENCE:.0f} s") from error

        return asyncio.run_coroutine_threadsafe(ask(), background_loop()).result()

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that the server answers to `body` on one of its native routes."""
        return _parsed(await self._request("POST", path, body))

    async def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        async with self._clients.here().request(method, path, _encoded(body)) as response:
            return await self._accepted(path, response)

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of the answer to a `/generate` body that asks for streaming, each with all of the text so far."""
        complete = False
        async with self._clients.here().request("POST", "/generate", _encoded(body)) as response:
            if response.status != 200:
                await self._accepted("/generate", response)
            async for data in sse_events(response.stream()):
                if data == b"[DONE]":
                    complete = True  # what is left to read is the end of the body
                    continue
                event = _parsed(data)
                if "error" in event:
                    raise BackendError(error_sentence(event))
                yield event
        if not complete:
            raise BackendUnreachable(f"{self.base_url} closed the connection before the answer was complete")

    async def _accepted(self, path: str, response: Response) -> bytes:
        """The body of a response that is no refusal. Raises BackendError with the server's sentence for one that is."""
        content = await response.read()
        if response.status == 200:
            return content
        try:
            sentence = error_sentence(json.loads(content))
        except ValueError:
            sentence = content.decode(errors="replace")[:500]
        if response.status == 401:
            sentence += "; give the server's key as api_key=..."
        raise BackendError(f"{sentence} (HTTP {response.status} from {self.base_url}{path})", response.status)


def _encoded(body: dict[str, Any] | None) -> bytes:
    return b"" if body is None else json.dumps(body).encode()


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise BackendError(f"the server did not answer with JSON, but with {content[:60]!r}") from error


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
