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

    def __init__(self, like: Any = None) -> None:
        self.model_path = getattr(like, "model", None) or getattr(like, "model_path", "")
        self.chat_template_name = getattr(like, "chat_template_name", None)

    async def generate(self, prompt: str, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        yield Chunk(HOLE, {})

    async def sample(self, prompt: str, params: SamplingParams) -> list[Chunk]:
        return [Chunk(HOLE, {})] * params.n

    async def score(self, prompt: str, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        return [ChoiceScore([(-float(place), place, None)], [(0.0, place, None)]) for place in range(len(choices))]
