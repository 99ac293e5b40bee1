"""What the language asks of a place where programs run.

A backend deals in plain data: prompts, sampling parameters, chunks of text, scores. It knows nothing of programs, states or
templates, so that a new one is written against this file alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from sgl_jupyter.lang.markup import ChatTemplate


class BackendError(RuntimeError):
    """The backend refused a request or failed at it. The message is the server's own sentence; `status` its HTTP status."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BackendUnreachable(BackendError, ConnectionError):
    """Nothing answers at the backend's address, or it went away during a request."""


class UnsupportedFeature(BackendError):
    """The backend cannot do what the program asks for. The message names the backend and the feature."""

    def __init__(self, backend: BaseBackend, feature: str) -> None:
        super().__init__(f"{type(backend).__name__} does not support {feature}")
        self.feature = feature


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a prompt. `url` is a `data:` URL that holds it, or where the server is to fetch it."""

    url: str

    @property
    def base64(self) -> str | None:
        """The image's file in base64, if it is here."""
        return self.url.partition(";base64,")[2] or None


@dataclass(frozen=True, slots=True)
class Video:
    """A video in a prompt: its frames in their order."""

    frames: tuple[Image, ...]


class Prompt(str):
    """The text to be continued; with it, for backends that take messages or images, how it came about.

    A backend that takes plain text uses it as the string that it is.
    """

    messages: Sequence[Mapping[str, Any]]
    """The messages that are complete, in OpenAI's form."""
    role: str | None
    """The role of the message that is being written, None outside of messages."""
    content: str
    """The text of that message so far, without the chat template's markup."""
    media: Sequence[Image | Video]
    """What the text shows, in its order: each stands for one of the chat template's image tokens."""

    def __new__(
        cls,
        text: str,
        messages: Sequence[Mapping[str, Any]] = (),
        role: str | None = None,
        content: str = "",
        media: Sequence[Image | Video] = (),
    ) -> Self:
        prompt = super().__new__(cls, text)
        prompt.messages, prompt.role, prompt.content, prompt.media = messages, role, content, media
        return prompt


@dataclass(frozen=True, slots=True)
class ModelTemplate:
    """The chat template that comes with a model: Jinja source, and the tokens that it may name."""

    source: str
    bos_token: str = ""
    eos_token: str = ""


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
    lora_path: str | None = None
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

    model_type: str = ""
    """The model's kind by its config, such as "qwen2_5_vl", where the server tells it."""

    chat_template: str | ChatTemplate | None = None
    """The chat template to use whatever the model is, or SGLang's name for it."""

    model_template: ModelTemplate | None = None
    """The model's own chat template, used where no template of SGLang's is known for it."""

    is_chat_model: bool | None = None
    """For a model behind an API, which takes its price by the call: whether it answers to messages (True) or continues text
    (False). None where a program may stop and go on anywhere, as on an engine of one's own."""

    sees_images: bool = False
    """Whether `Prompt.media` is looked at. Where it is not, an image in a prompt is an `UnsupportedFeature`."""

    scores_choices: bool = True
    """Whether `score` tells the log-probabilities of choices. Where it cannot, `choose` has the server pick one."""

    def get_chat_template(self) -> ChatTemplate:
        """The one that programs use here."""
        from sgl_jupyter.lang.chat_template import template_of

        return template_of(self)

    def generate(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        """Continue `prompt` once, streaming. `params.n` is 1."""
        raise NotImplementedError(f"{type(self).__name__} does not generate")

    async def sample(self, prompt: Prompt, params: SamplingParams) -> list[Chunk]:
        """Continue `prompt` `params.n` times; each answer whole."""
        raise UnsupportedFeature(self, "several samples (n > 1)")

    async def choose(self, prompt: Prompt, choices: Sequence[str]) -> tuple[str, dict[str, Any]]:
        """One of `choices`, with the server's meta_info. For a backend whose `scores_choices` is False."""
        raise UnsupportedFeature(self, "choices")

    async def score(self, prompt: Prompt, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        """The log-probabilities of each choice after `prompt`; with `alone`, also without it."""
        raise UnsupportedFeature(self, "the scoring of choices")

    async def cache_prefix(self, prompt: Prompt) -> None:
        """Have `prompt` computed, so that requests which begin with it share the work. Optional."""

    def flush_cache(self) -> None:
        """Forget all cached prefixes. Blocks."""

    def abort_all(self) -> None:
        """End every request that the server works on, whoever sent it. Blocks."""
        raise UnsupportedFeature(self, "ending all requests at once")

    def get_server_info(self) -> dict[str, Any] | None:
        """The server's arguments and state, where it tells them. Blocks."""
        return None
