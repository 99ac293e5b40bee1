"""Programs on whatever LiteLLM reaches, which speaks to many vendors in OpenAI's form."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from sgl_jupyter.backends.api import ApiBackend, broken_off, errors_of, require
from sgl_jupyter.backends.base import Chunk, Prompt, SamplingParams
from sgl_jupyter.backends.openai_answer import Answer
from sgl_jupyter.backends.openai_body import DIALECTS, OWN, own_fields


class LiteLLM(ApiBackend):
    """A model by LiteLLM's name for it, such as "anthropic/claude-sonnet-4-5". What its vendor does not take, LiteLLM refuses.

    Args:
        model_name: the vendor and the model.
        chat_template: SGLang's name of the chat template to show the text with. The vendor is sent messages.
        default_headers: headers to be sent with every request.
        options: any other arguments of `litellm.acompletion`: api_key, base_url, organization, timeout, max_retries and so on.

    Raises:
        ImportError: the package `litellm` is not installed.
    """

    _features = OWN | {"json_schema"}

    def __init__(
        self,
        model_name: str,
        chat_template: str = "default",
        *,
        default_headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model_name)
        self.chat_template = chat_template
        self._sdk = require("litellm", "litellm")
        self._sdk.suppress_debug_info = True  # it prints advice with each error, into the notebook
        self._errors = require("openai", "litellm")  # those of LiteLLM are kinds of OpenAI's
        self._options = options
        if default_headers:
            self._options["extra_headers"] = dict(default_headers)

    async def _stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        request = self._options | own_fields(params, is_chat_model=True, omit_defaults=True)
        request |= DIALECTS["openai"].extra_fields(params, is_chat_model=True)
        request |= {"model": self.model_name, "messages": self._conversation(prompt)}
        answer = Answer(self.model_name)
        with errors_of(self._errors, self.model_name):
            events = await self._sdk.acompletion(**request, stream=True, stream_options={"include_usage": True})
            async with aclosing(events):
                async for event in events:
                    answer.take_frame(event)
                    for choice in event.choices:
                        yield Chunk(answer.take(choice), answer.meta_info())
        if not answer.is_complete:
            raise broken_off(self.model_name)
        yield Chunk("", answer.meta_info())
