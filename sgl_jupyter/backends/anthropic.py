"""Programs on Anthropic's models, through Anthropic's own client."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from sgl_jupyter.backends.api import ApiBackend, broken_off, data_url, errors_of, finish_reason, require
from sgl_jupyter.backends.base import BackendError, Chunk, Prompt, SamplingParams
from sgl_jupyter.backends.loop_client import LoopClient
from sgl_jupyter.backends.strict_schema import strict_schema

SAMPLING_VERSION = "2023-06-01"
"""The version of the Messages API that takes temperature, top_p and top_k. Later ones refuse them; so do some models."""
FINISH_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


class Anthropic(ApiBackend):
    """A model of Anthropic's (Messages API).

    A begun assistant message is sent as the last one, which the model goes on with, if it is one that can. A temperature, top_p
    or top_k other than SGLang's default is sent with the last version of the API that takes it.

    Args:
        model_name: the model, by Anthropic's name for it.
        client: the client's own arguments: api_key, base_url, timeout, max_retries and so on. Where they are not given it looks
            at its own environment variables, such as ANTHROPIC_API_KEY.

    Raises:
        ImportError: the package `anthropic` is not installed.
    """

    _features = frozenset({"max_new_tokens", "stop", "temperature", "top_p", "top_k", "json_schema"})
    _continues = True
    _choice_temperature = 1.0  # its recent models know no other

    def __init__(self, model_name: str, **client: Any) -> None:
        super().__init__(model_name)
        self._sdk = sdk = require("anthropic", "anthropic")
        first = sdk.AsyncAnthropic(**client)
        self._clients = LoopClient(lambda: sdk.AsyncAnthropic(**client), lambda each: each.close(), first)
        self._url = str(first.base_url).rstrip("/")

    async def _stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        request = self._request(prompt, params)
        meta_info: dict[str, Any] = {"finish_reason": None}
        with errors_of(self._sdk, self._url):
            async with await self._clients.here().messages.create(**request, stream=True) as events:
                async for event in events:
                    if event.type == "message_start":
                        meta_info |= {"id": event.message.id} | _usage(event.message.usage)
                    elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                        yield Chunk(event.delta.text, dict(meta_info))
                    elif event.type == "message_delta":
                        meta_info["completion_tokens"] = event.usage.output_tokens
                        meta_info["finish_reason"] = self._finish_reason(event.delta, event.usage.output_tokens)
        if meta_info["finish_reason"] is None:
            raise broken_off(self._url)
        yield Chunk("", meta_info)

    def _request(self, prompt: Prompt, params: SamplingParams) -> dict[str, Any]:
        """The arguments of the client's `create`."""
        messages = [{**message, "content": _blocks(message["content"])} for message in self._conversation(prompt)]
        request: dict[str, Any] = {"model": self.model_name, "max_tokens": params.max_new_tokens}
        if messages and messages[0]["role"] == "system":
            request["system"] = messages.pop(0)["content"]
        request["messages"] = messages
        if params.stop:
            request["stop_sequences"] = list(params.stop)
        sampling = {"temperature": (params.temperature, 1.0), "top_p": (params.top_p, 1.0), "top_k": (params.top_k, -1)}
        extra: dict[str, Any] = {name: value for name, (value, default) in sampling.items() if value != default}
        if extra:
            request["extra_headers"] = {"anthropic-version": SAMPLING_VERSION}
        if params.json_schema is not None:
            schema = strict_schema(json.loads(params.json_schema))
            extra["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return request | {"extra_body": extra}

    def _finish_reason(self, delta: Any, completion_tokens: int) -> dict[str, Any]:
        if delta.stop_reason == "refusal":
            raise BackendError(f"{self.model_name} refused to answer")
        kind = FINISH_REASONS.get(delta.stop_reason, delta.stop_reason)
        return finish_reason(kind or "stop", completion_tokens, delta.stop_sequence)


def _usage(usage: Any) -> dict[str, Any]:
    """Anthropic counts what was cached apart from the rest of the prompt."""
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return {"prompt_tokens": usage.input_tokens + cached + written, "cached_tokens": cached}


def _blocks(content: str | list[Mapping[str, Any]]) -> str | list[Mapping[str, Any]]:
    """A message's content, in OpenAI's form, in Anthropic's."""
    if isinstance(content, str):
        return content
    return [_image(part["image_url"]["url"]) if part["type"] == "image_url" else part for part in content]


def _image(url: str) -> dict[str, Any]:
    if (data := data_url(url)) is None:
        return {"type": "image", "source": {"type": "url", "url": url}}
    mime_type, content = data
    return {"type": "image", "source": {"type": "base64", "media_type": mime_type, "data": content}}
