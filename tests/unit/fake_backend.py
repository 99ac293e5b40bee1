"""A backend that answers by script, in this process: for what a real engine cannot be made to do on demand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from sgl_jupyter.backends.base import BaseBackend, ChoiceScore, Chunk, SamplingParams

Part = str | Exception | threading.Event
Answer = str | Exception | Sequence[Part]
T = TypeVar("T")


class FakeBackend(BaseBackend):
    """Answers each request with the next of `answers`, the last one again and again, or with `answers(prompt)`.

    An answer is a text, or a list of its parts: text that is streamed, an event to wait for, an exception to raise.
    """

    def __init__(self, *answers: Answer | Callable[[str], Answer], template: str = "chatml") -> None:
        self.chat_template = template
        self.answers = list(answers) or ["an answer"]
        self.requests: list[tuple[str, SamplingParams]] = []
        self.cached: list[str] = []
        self.left_early = threading.Event()

    @property
    def prompts(self) -> list[str]:
        return [prompt for prompt, _ in self.requests]

    def _next(self, prompt: str, params: SamplingParams) -> Sequence[Part]:
        self.requests.append((prompt, params))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answer = answer(prompt) if callable(answer) else answer
        return [answer] if isinstance(answer, str | Exception) else answer

    async def generate(self, prompt: str, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        parts = self._next(prompt, params)
        try:
            for tokens, part in enumerate(parts, 1):
                if isinstance(part, Exception):
                    raise part
                if isinstance(part, threading.Event):
                    while not part.is_set():
                        await asyncio.sleep(0.002)
                else:
                    yield Chunk(part, {"completion_tokens": tokens, "finish_reason": None})
            yield Chunk("", {"completion_tokens": len(parts), "finish_reason": {"type": "stop"}})
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)  # as a connection that takes its time to close
            self.left_early.set()
            raise

    async def sample(self, prompt: str, params: SamplingParams) -> list[Chunk]:
        return [Chunk(str(self._next(prompt, params)[0]), {"completion_tokens": 1}) for _ in range(params.n)]

    async def score(self, prompt: str, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        """One token a choice; the first choice is the likeliest."""
        self.requests.append((prompt, SamplingParams()))
        return [ChoiceScore([(-1.0 - i, i, choice)]) for i, choice in enumerate(choices)]

    async def cache_prefix(self, prompt: str) -> None:
        self.cached.append(prompt)


def within(seconds: float, function: Callable[..., T], *args: Any) -> T:
    """The result of `function(*args)`; fails, where it would hang."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(function(*args))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result.result(seconds)
