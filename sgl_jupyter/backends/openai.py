"""Programs on OpenAI's service, and on any server with OpenAI's routes, through OpenAI's own client.

A chat model is sent messages, any other one text. Which server it is, and so what it can do beyond OpenAI's routes, is said and
never guessed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from sgl_jupyter.backends.api import ApiBackend, broken_off, errors_of, require, together, whole
from sgl_jupyter.backends.base import (
    BackendError,
    ChoiceScore,
    Chunk,
    Prompt,
    SamplingParams,
    TokenLogprob,
    UnsupportedFeature,
)
from sgl_jupyter.backends.loop_client import LoopClient
from sgl_jupyter.backends.openai_answer import Answer, StopCutter, token_logprobs
from sgl_jupyter.backends.openai_body import DIALECTS, own_fields

COMPLETION_MODELS = ("gpt-3.5-turbo-instruct", "davinci-002", "babbage-002")
"""OpenAI's models that continue text."""


@dataclass
class TokenUsage:
    """Tokens that a backend's answers have cost so far."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, meta_info: Mapping[str, Any]) -> None:
        self.prompt_tokens += meta_info.get("prompt_tokens") or 0
        self.completion_tokens += meta_info.get("completion_tokens") or 0

    def reset(self) -> None:
        self.prompt_tokens = self.completion_tokens = 0


class OpenAI(ApiBackend):
    """A model of OpenAI's, of Azure's, or of a server with the same routes (`base_url`).

    Args:
        model_name: the model, by the server's name for it.
        is_chat_model: whether it answers messages; if not said, all do but three old ones of OpenAI's.
        chat_template: for a model that continues text, SGLang's name of its chat template, if the one found by the model's name
            is not right.
        is_azure: use Azure's client.
        server: which kind of server it is: "openai", "sglang" (also for kernel_engine), "vllm", "llama.cpp" or "transformers".
        extra_body: fields to be sent with every request.
        client: the rest is the client's: api_key, base_url, organization, timeout, max_retries, default_headers and so on. Where
            they are not given it looks at its own environment variables, such as OPENAI_API_KEY.

    Raises:
        ImportError: the package `openai` is not installed.
        ValueError: `server` is none of these.
        openai.OpenAIError: there is no key.
    """

    def __init__(
        self,
        model_name: str,
        is_chat_model: bool | None = None,
        chat_template: str | None = None,
        is_azure: bool = False,
        *,
        server: str = "openai",
        extra_body: Mapping[str, Any] | None = None,
        **client: Any,
    ) -> None:
        if server not in DIALECTS:
            raise ValueError(f"server must be one of {', '.join(DIALECTS)}, not {server!r}")
        self._sdk = require("openai", "openai")
        kind = self._sdk.AsyncAzureOpenAI if is_azure else self._sdk.AsyncOpenAI
        super().__init__(model_name)
        first = kind(**client)
        self._clients = LoopClient(lambda: kind(**client), lambda each: each.close(), first)
        self.is_chat_model = model_name not in COMPLETION_MODELS if is_chat_model is None else is_chat_model
        self.sees_images = self.is_chat_model
        self.chat_template = chat_template or ("default" if self.is_chat_model else None)
        self.token_usage = TokenUsage()
        self._server = server
        self._dialect = DIALECTS[server]
        self.scores_choices = not self.is_chat_model and "echo" not in self._dialect.lacks
        self._features = self._dialect.features(self.is_chat_model)
        self._continues = self._dialect.continuation is not None
        self._extra_body = dict(extra_body or {})
        self._url = str(first.base_url).rstrip("/")
        self._is_openais_own = is_azure or (urlsplit(self._url).hostname or "").endswith("openai.com")
        if self._is_openais_own:
            self._choice_temperature = 1.0  # its reasoning models know no other

    async def sample(self, prompt: Prompt, params: SamplingParams) -> list[Chunk]:
        if "n" in self._dialect.lacks or (params.regex and "regex" not in self._features):
            return await super().sample(prompt, params)
        self._refuse_all_but(params, self._features)
        with errors_of(self._sdk, self._url):
            response = await self._create(self._request(prompt, params) | {"n": params.n})
        if len(getattr(response, "choices", ())) != params.n:
            raise BackendError(f"{self._url} did not give {params.n} answers, but {str(response)[:60]!r}")
        samples = [self._sample(response, choice) for choice in response.choices]
        self.token_usage.add(samples[0].meta_info)
        for sample in samples[1:]:
            sample.meta_info["completion_tokens"] = 0  # the first one tells the sum of all
        return samples

    async def choose(self, prompt: Prompt, choices: Sequence[str]) -> tuple[str, dict[str, Any]]:
        longest = max(len(choice.encode()) for choice in choices)  # in tokens, none of which is less than a byte
        params = SamplingParams(temperature=0.0, max_new_tokens=longest + 1)
        if "regex" in self._features:
            params = replace(params, regex="|".join(map(_regex_literal, choices)))
        elif "ebnf" in self._features:
            params = replace(params, ebnf="root ::= " + " | ".join(map(_grammar_literal, choices)))
        else:
            return await super().choose(prompt, choices)
        answer = await whole(self.generate(prompt, params))
        if answer.text not in choices:
            raise BackendError(f"{self._url} answered {answer.text[:60]!r}, which is none of the choices")
        return answer.text, answer.meta_info

    async def score(self, prompt: Prompt, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        """By the log-probabilities that come with an echo of prompt and choice.

        As in `RuntimeEndpoint`, a token that holds the prompt's end and a choice's beginning is the choice's.
        """
        if alone:
            raise self._unsupported("unconditional_likelihood_normalized, which takes token ids to be scored")
        end, *tails = await together(
            [self._scored(text) for text in (prompt, *(prompt + choice for choice in choices))]
        )
        scores = []
        for choice, tail in zip(choices, tails, strict=True):
            shared = next((i for i, (a, b) in enumerate(zip(end, tail, strict=False)) if a[2] != b[2]), len(end))
            if shared >= len(tail):
                raise BackendError(f"the choice {choice!r} adds no token to the prompt, so it has no probability")
            scores.append(ChoiceScore(tail[shared:]))
        return scores

    async def _stream(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        request = self._request(prompt, params) | {"stream": True, "stream_options": {"include_usage": True}}
        answer, cutter = Answer(self.model_name), StopCutter(params.stop if self._dialect.leaves_stop else ())
        with errors_of(self._sdk, self._url):
            async with await self._create(request) as events:
                async for event in events:
                    answer.take_frame(event)
                    for choice in event.choices:
                        yield Chunk(cutter.feed(answer.take(choice)), answer.meta_info())
        if not answer.is_complete:
            raise broken_off(self._url)
        meta_info = answer.meta_info()
        self.token_usage.add(meta_info)
        yield Chunk(cutter.rest(), meta_info)

    def _unsupported(self, feature: str) -> UnsupportedFeature:
        return UnsupportedFeature(self, f"{feature} (with server={self._server!r})")

    def _create(self, request: Mapping[str, Any]) -> Any:
        client = self._clients.here()
        route = client.chat.completions if self.is_chat_model else client.completions
        return route.create(**request)

    def _request(self, prompt: Prompt, params: SamplingParams) -> dict[str, Any]:
        """The arguments of the client's `create`."""
        extra = self._dialect.extra_fields(params, bool(self.is_chat_model)) | self._extra_body
        request: dict[str, Any] = {"model": self.model_name}
        if self.is_chat_model:
            request["messages"] = self._conversation(prompt)
            if prompt.content.strip():
                extra |= self._dialect.continuation or {}
        else:
            request["prompt"] = str(prompt)
        if response_format := extra.pop("response_format", None):
            request["response_format"] = response_format
        own = own_fields(params, bool(self.is_chat_model), omit_defaults=self._is_openais_own)
        if self.is_chat_model and self._is_openais_own:
            own["max_completion_tokens"] = own.pop("max_tokens")
        return request | own | {"extra_body": extra}

    def _sample(self, response: Any, choice: Any) -> Chunk:
        answer = Answer(self.model_name)
        answer.take_frame(response)
        return Chunk(answer.take(choice), answer.meta_info())

    async def _scored(self, text: str) -> list[TokenLogprob]:
        """The tokens of `text`. One more is generated, since not every server generates none, and is left out."""
        request = {"model": self.model_name, "prompt": text, "echo": True, "logprobs": 1, "max_tokens": 1}
        with errors_of(self._sdk, self._url):
            response = await self._create(request | {"temperature": 0.0, "extra_body": self._extra_body})
        logprobs = response.choices[0].logprobs
        if logprobs is None or not response.choices[0].text.startswith(text):
            raise BackendError(f"{self._url} tells no log-probabilities of a prompt (echo and logprobs)")
        self.token_usage.add(response.usage.model_dump())
        tokens = token_logprobs(logprobs)
        return tokens[: len(tokens) - response.usage.completion_tokens]


def _regex_literal(text: str) -> str:
    return "".join("\\" + c if c in r"\.^$|?*+()[]{}" else c for c in text)


def _grammar_literal(text: str) -> str:
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f'"{escaped}"'
