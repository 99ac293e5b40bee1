"""What the language asks of a place where programs run.

A backend deals in plain data: prompts, sampling parameters, chunks of text, scores. It knows nothing of programs, states or
templates, so that a new one is written against this file alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class BackendError(RuntimeError):
    """The backend refused a request or failed at it. The message is the server's own sentence; `status` its HTTP status."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BackendUnreachable(BackendError, ConnectionError):
    """Nothing answers at the backend's address, or it went away during a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one generation samples: SGLang's names and defaults. Token counts are in the model's tokens."""

    max_new_tokens: int = 128
    min_new_tokens: int = 0
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    stop_regex: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    ignore_eos: bool = False
    logit_bias: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    regex: str | None = None
    json_schema: str | None = None
    ebnf: str | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    return_logprob: bool | None = None
    logprob_start_len: int | None = None
    top_logprobs_num: int | None = None
    return_text_in_logprobs: bool | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """What arrived since the last chunk; `meta_info` is the server's, as of now."""

    text: str
    meta_info: dict[str, Any]


TokenLogprob = tuple[float | None, int, str | None]
"""Natural logarithm of a token's probability (None where nothing precedes it), its id, and its text where asked for."""


@dataclass(frozen=True, slots=True)
class ChoiceScore:
    """The tokens that one choice adds to the prompt: `given_prompt` scored after it, `alone` scored without it."""

    given_prompt: list[TokenLogprob]
    alone: list[TokenLogprob] | None = None


class BaseBackend:
    """A place where programs run.

    The coroutines are awaited on the language's background loop. Leaving `generate` early, by closing or cancelling it,
    ends the request at the server. Every failure is a `BackendError` with the server's sentence.
    """

    model_path: str = ""
    """The model's path or hub id; the language chooses a chat template by it."""

    chat_template_name: str | None = None
    """The chat template to use whatever the model's path is."""

    def generate(self, prompt: str, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        """Continue `prompt` once, streaming. `params.n` is 1."""
        raise NotImplementedError(f"{type(self).__name__} does not generate")

    async def sample(self, prompt: str, params: SamplingParams) -> list[Chunk]:
        """Continue `prompt` `params.n` times; each answer whole."""
        raise NotImplementedError(f"{type(self).__name__} does not draw several samples (n > 1)")

    async def score(self, prompt: str, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        """The log-probabilities of each choice after `prompt`; with `alone`, also without it."""
        raise NotImplementedError(f"{type(self).__name__} does not score choices")

    async def cache_prefix(self, prompt: str) -> None:
        """Have `prompt` computed, so that requests which begin with it share the work. Optional."""

    def flush_cache(self) -> None:
        """Forget all cached prefixes. Blocks."""

    def get_server_info(self) -> dict[str, Any] | None:
        """The server's arguments and state, where it tells them. Blocks."""
        return None
