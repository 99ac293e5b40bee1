"""What the bodies of OpenAI's routes are read with: the server's side of it, the same for all."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerFast

from ..errors import RequestError
from ..model import Model
from ..sampling_params import SamplingParams
from ..server_args import ServerArgs
from .call_forms import Form, choose_form
from .logprobs import Vocabulary
from .template import ChatTemplate

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    template: ChatTemplate
    call_form: Form | None
    """None: calls are read only where they were forced."""
    reasoning: str | None
    """The value of `--reasoning-parser`."""
    defaults: dict[str, Any]
    """The model's own sampling parameters, used where a body does not say."""
    model: str
    """The served name."""
    adapters: list[str]
    stream_interval: int


def read_settings(model: Model, args: ServerArgs, template: ChatTemplate) -> Settings:
    return Settings(
        tokenizer=model.tokenizer,
        vocabulary=Vocabulary(model.tokenizer),
        template=template,
        call_form=choose_form(args.tool_call_parser, template.source),
        reasoning=args.reasoning_parser,
        defaults=_usable(model.default_sampling),
        model=args.model_name,
        adapters=model.adapters.names,
        stream_interval=args.stream_interval,
    )


def _usable(defaults: dict[str, Any]) -> dict[str, Any]:
    try:
        SamplingParams.from_json(defaults)
    except RequestError as error:
        logger.warning("the sampling parameters of the model's generation_config.json are left out: %s", error)
        return {}
    return defaults
