"""Programs without a model: the prompt with holes where one would write, and no engine behind it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from sgl_jupyter.backends.base import BaseBackend, ChoiceScore, Chunk, SamplingParams

HOLE = "…"


class DryBackend(BaseBackend):
    """Every `gen` yields a hole, every `select` its first choice, so that the program goes on.

    Args:
        like: the backend or engine that the program would run on, if there is one; its chat template is used.
    """

    sees_images = True

    def __init__(self, like: Any = None) -> None:
        place = like.endpoint if getattr(like, "state", None) == "ready" else like  # nobody waits for an engine here
        self.model_path = getattr(place, "model", None) or getattr(place, "model_path", "")
        self.model_type = getattr(place, "model_type", "")
        self.chat_template = getattr(place, "chat_template", None)
        self.model_template = getattr(place, "model_template", None)
        self.is_chat_model = getattr(place, "is_chat_model", None)

    async def generate(self, prompt: str, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        yield Chunk(HOLE, {})

    async def sample(self, prompt: str, params: SamplingParams) -> list[Chunk]:
        return [Chunk(HOLE, {})] * params.n

    async def score(self, prompt: str, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        return [ChoiceScore([(-float(place), place, None)], [(0.0, place, None)]) for place in range(len(choices))]
