"""Programs on Gemini models of Google's Vertex AI, through Google's own client."""

from __future__ import annotations

import base64
import json
import mimetypes
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from sgl_jupyter.backends.api import (
    NOTHING_ASKED,
    ApiBackend,
    broken_off,
    data_url,
    finish_reason,
    refusal,
    require,
    transport_errors,
)
from sgl_jupyter.backends.base import BackendError, BackendUnreachable, Chunk, Prompt, SamplingParams
from sgl_jupyter.backends.loop_client import LoopClient

FINISH_REASONS = {"STOP": "stop", "MAX_TOKENS": "length"}
"""All others are reasons for which an answer was held back."""


class VertexAI(ApiBackend):
    """A Gemini model on Vertex AI.

    Args:
        model_name: the model, such as "gemini-2.5-flash".
        safety_settings: Google's, in the form of `google.genai.types.SafetySetting`.
        project, location: of Google Cloud; where they are not given, GCP_PROJECT_ID and GCP_LOCATION of the environment, as in
            SGLang, or else the client's own GOOGLE_CLOUD_PROJECT and GOOGLE_CLOUD_LOCATION.
        client: further arguments of `google.genai.Client`: credentials, http_options and so on.

    Raises:
        ImportError: the package `google-genai` is not installed.
        ValueError: there is no project or no location.
    """

    _features = frozenset(
        {
            "max_new_tokens",
            "temperature",
            "top_p",
            "top_k",
            "frequency_penalty",
            "presence_penalty",
            "seed",
            "stop",
            "json_schema",
        }
    )

    def __init__(
        self,
        model_name: str,
        safety_settings: Sequence[Mapping[str, Any]] | None = None,
        *,
        project: str | None = None,
        location: str | None = None,
        **client: Any,
    ) -> None:
        super().__init__(model_name)
        genai = require("google.genai", "vertexai")
        self._types = require("google.genai.types", "vertexai")
        self._errors = require("google.genai.errors", "vertexai")
        self._auth_errors = require("google.auth.exceptions", "vertexai")
        client |= {
            "project": project or os.environ.get("GCP_PROJECT_ID"),
            "location": location or os.environ.get("GCP_LOCATION"),
        }
        self._safety_settings = safety_settings
        first = genai.Client(vertexai=True, **client).aio
        self._clients = LoopClient(lambda: genai.Client(vertexai=True, **client).aio, lambda each: each.aclose(), first)

    async def _stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        request = self._request(prompt, params)
        meta_info: dict[str, Any] = {"finish_reason": None}
        try:
            answer = await self._clients.here().models.generate_content_stream(model=self.model_name, **request)
            async with aclosing(answer):
                async for event in answer:
                    text = self._take(event, meta_info)
                    yield Chunk(text, dict(meta_info))
        except self._errors.APIError as error:
            raise refusal(error.message or error.details, error.code, "Vertex AI") from error
        except self._auth_errors.GoogleAuthError as error:
            raise BackendError(f"no credentials for Vertex AI: {error}") from error
        except transport_errors() as error:
            raise BackendUnreachable(f"no connection to Vertex AI: {error!r}") from error
        if meta_info["finish_reason"] is None:
            raise broken_off("Vertex AI")

    def _request(self, prompt: Prompt, params: SamplingParams) -> dict[str, Any]:
        """The arguments of the client's `generate_content_stream`."""
        messages = self._conversation(prompt)
        config: dict[str, Any] = {
            "max_output_tokens": params.max_new_tokens,
            "temperature": params.temperature,
            "top_p": params.top_p,
        }
        if messages and messages[0]["role"] == "system":
            config["system_instruction"] = self._parts(messages.pop(0)["content"])
        if any(message["role"] == "system" for message in messages):
            raise self._unsupported("a system message that is not the first message")
        if params.top_k > 0:
            config["top_k"] = params.top_k
        if params.stop:
            config["stop_sequences"] = list(params.stop)
        for name in ("frequency_penalty", "presence_penalty", "seed"):
            if (value := getattr(params, name)) != getattr(NOTHING_ASKED, name):
                config[name] = value
        if params.json_schema is not None:
            config |= {
                "response_mime_type": "application/json",
                "response_json_schema": json.loads(params.json_schema),
            }
        if self._safety_settings:
            config["safety_settings"] = self._safety_settings
        contents = [
            {
                "role": "model" if message["role"] == "assistant" else message["role"],
                "parts": self._parts(message["content"]),
            }
            for message in messages
        ]
        return {"contents": contents, "config": config}

    def _take(self, event: Any, meta_info: dict[str, Any]) -> str:
        """The text of an event; what else it tells goes to `meta_info`. Raises BackendError if the answer is held back."""
        if feedback := event.prompt_feedback:
            raise BackendError(f"{self.model_name} refused to answer: {feedback.block_reason.value}")
        if usage := event.usage_metadata:
            completion_tokens = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
            meta_info |= {
                "prompt_tokens": usage.prompt_token_count or 0,
                "completion_tokens": completion_tokens,
                "cached_tokens": usage.cached_content_token_count or 0,
            }
        meta_info["id"] = event.response_id
        if not event.candidates:
            return ""
        candidate = event.candidates[0]
        if candidate.finish_reason:
            if (kind := FINISH_REASONS.get(candidate.finish_reason.value)) is None:
                raise BackendError(f"{self.model_name} refused to answer: {candidate.finish_reason.value}")
            meta_info["finish_reason"] = finish_reason(kind, meta_info.get("completion_tokens"))
        parts = candidate.content.parts if candidate.content else None
        return "".join(part.text for part in parts or () if part.text and not part.thought)

    def _parts(self, content: str | Sequence[Mapping[str, Any]]) -> list[Any]:
        """A message's content, in OpenAI's form, in Google's."""
        if isinstance(content, str):
            return [self._types.Part(text=content)]
        return [
            self._image(part["image_url"]["url"])
            if part["type"] == "image_url"
            else self._types.Part(text=part["text"])
            for part in content
        ]

    def _image(self, url: str) -> Any:
        if (data := data_url(url)) is None:
            mime_type = mimetypes.guess_type(url.partition("?")[0])[0] or "image/jpeg"
            return self._types.Part.from_uri(file_uri=url, mime_type=mime_type)
        mime_type, content = data
        return self._types.Part.from_bytes(data=base64.b64decode(content), mime_type=mime_type)
