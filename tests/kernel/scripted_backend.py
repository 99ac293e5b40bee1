"""A backend that says what a test tells it to, piece by piece, inside the kernel under test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from sgl_jupyter.backends.base import BaseBackend, ChoiceScore, Chunk, SamplingParams


class ScriptedBackend(BaseBackend):
    """Answers one generation after another from `answers`: pieces of text, seconds to wait, or an error to raise.

    Choices always fall on the first. `cancelled` counts the generations that were left before their end, which takes
    `farewell` seconds.
    """

    model_path = "tiny-chat"

    def __init__(self, *answers: Sequence[str | float | Exception], farewell: float = 0.0) -> None:
        self.answers = list(answers)
        self.params: list[SamplingParams] = []
        self.cancelled = 0
        self.farewell = farewell

    async def generate(self, prompt: str, params: SamplingParams) -> AsyncIterator[Chunk]:
        self.params.append(params)
        answer = self.answers.pop(0)
        meta_info = {"prompt_tokens": len(prompt.split()), "completion_tokens": 0, "cached_tokens": 0}
        try:
            for item in answer:
                match item:
                    case str():
                        meta_info = meta_info | {"completion_tokens": meta_info["completion_tokens"] + 1}
                        yield Chunk(item, meta_info)
                    case Exception():
                        raise item
                    case seconds:
                        await asyncio.sleep(seconds)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            await asyncio.sleep(self.farewell)
            raise

    async def sample(self, prompt: str, params: SamplingParams) -> list[Chunk]:
        """Each piece of the next answer is a sample of its own."""
        self.params.append(params)
        return [Chunk(str(text), {"completion_tokens": 1}) for text in self.answers.pop(0)]

    async def score(self, prompt: str, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        return [ChoiceScore([(-float(place), place, choice)]) for place, choice in enumerate(choices, start=1)]
