"""What each expression does to the document of a state.

Expressions are executed one after another on the background loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from contextlib import aclosing

from sgl_jupyter.backends.base import BaseBackend, Chunk, Image, SamplingParams, UnsupportedFeature, Video
from sgl_jupyter.lang.answer import Answer
from sgl_jupyter.lang.choices import ChoicesDecision, decide, token_length_normalized
from sgl_jupyter.lang.document import Document
from sgl_jupyter.lang.events import GenerationStarted
from sgl_jupyter.lang.ir import (
    SglCommitLazy,
    SglConstantText,
    SglExpr,
    SglGen,
    SglImage,
    SglRoleBegin,
    SglRoleEnd,
    SglSelect,
    SglSetVar,
    SglVarScopeBegin,
    SglVarScopeEnd,
    SglVideo,
    variables_of,
)
from sgl_jupyter.lang.sampling import resolve
from sgl_jupyter.lang.speculation import (
    ATTEMPTS,
    Lookahead,
    SpeculationFailed,
    can_look_ahead,
    match_turn,
    turn_pattern,
)


class Interpreter:
    """Extends one document by what `backend` makes of its expressions.

    Args:
        defaults: how generations sample that do not say otherwise.
        api_tokens: how many tokens a speculative call to an API may take; None for no speculation.
    """

    def __init__(
        self, document: Document, backend: BaseBackend, defaults: SamplingParams, api_tokens: int | None = None
    ) -> None:
        self.document = document
        self.backend = backend
        self.defaults = defaults
        self.api_tokens = api_tokens
        self._ahead = Lookahead()
        self._turn: list[SglExpr] = []
        """What is put off until the assistant's turn is over, which a chat model answers as a whole."""

    def fork(self) -> Interpreter:
        return Interpreter(self.document.fork(), self.backend, self.defaults, self.api_tokens)

    def puts_off(self, name: str | None) -> bool:
        """Whether the variable waits for the end of an assistant's turn."""
        return any(name in variables_of(expr) for expr in self._turn)

    async def execute(self, expr: SglExpr) -> None:
        whole_turns = self.api_tokens and self.backend.is_chat_model and self.document.role == "assistant"
        if not whole_turns:
            await self._perform(expr)
        elif not isinstance(expr, SglRoleEnd):
            self._turn.append(expr)
        else:
            await self._perform_turn(self._turn)
            self._turn = []
            await self._perform(expr)

    async def _perform(self, expr: SglExpr) -> None:
        document = self.document
        match expr:
            case SglConstantText(value):
                if self.backend.is_chat_model and document.role is None and value.strip():
                    raise UnsupportedFeature(self.backend, "text outside of messages: write user(...), for example")
                self._ahead.skip(value)
                document.append(value, "prompt")
            case SglGen():
                await self._generate(expr)
            case SglSelect():
                await self._select(expr)
            case SglImage(media=Image() as media) | SglVideo(media=Video() as media):
                self._show(media)
            case SglRoleBegin(role):
                before = len(document.text)
                document.open_message(role)
                self._ahead.skip(document.text[before:])
            case SglRoleEnd(role):
                before = len(document.text)
                document.close_message(role)
                self._ahead.skip(document.text[before:])
            case SglVarScopeBegin(name):
                document.begin(name)
            case SglVarScopeEnd(name):
                document.end(name)
            case SglSetVar(name, value):
                document.spans.pop(name, None)
                document.set(name, value, document.meta_info.get(name))
            case SglCommitLazy():
                await self.backend.cache_prefix(document.prompt())
            case _:
                raise TypeError(f"unknown expression {expr!r}")

    def _show(self, media: Image | Video) -> None:
        if not self.backend.sees_images:
            raise UnsupportedFeature(self.backend, "images in prompts")
        if self.backend.is_chat_model and self.document.role in (None, "assistant"):
            raise UnsupportedFeature(self.backend, "images that stand in no user's message: write user(image(...))")
        self.document.show(media)

    async def _generate(self, gen: SglGen) -> None:
        params = resolve(self.defaults, gen, self.document.template.stop_str)
        prompt = self.document.prompt()
        answer = Answer(self.document, gen)
        if params.n > 1:
            answer.take_samples(await self.backend.sample(prompt, params))
            return
        if self.api_tokens and self.backend.is_chat_model is False and can_look_ahead(params):
            answer.take(await self._look_ahead(params))
            answer.finish()
            return
        self._ahead = Lookahead()
        try:
            async with aclosing(self.backend.generate(prompt, params)) as chunks:
                async for chunk in chunks:
                    answer.take(chunk)
        except asyncio.CancelledError:
            answer.finish()
            raise
        answer.finish()

    async def _look_ahead(self, params: SamplingParams) -> Chunk:
        """The generation's text from what the model wrote ahead; where that does not hold it, from one call that writes on."""
        text = self._ahead.take(params.stop)
        if text is not None:
            return Chunk(text, {"finish_reason": {"type": "stop"}, "prompt_tokens": 0, "completion_tokens": 0})
        longest = max(params.max_new_tokens, self.api_tokens or 0)
        whole = await self._whole(dataclasses.replace(params, max_new_tokens=longest, stop=()))
        self._ahead.fill(whole.text)
        return Chunk(self._ahead.take(params.stop, to_its_end=True) or "", whole.meta_info)

    async def _perform_turn(self, turn: Sequence[SglExpr]) -> None:
        """One call for all generations of an assistant's turn."""
        allowed = SglConstantText | SglGen | SglVarScopeBegin | SglVarScopeEnd | SglSetVar
        for expr in turn:
            if not isinstance(expr, allowed):
                raise UnsupportedFeature(self.backend, f"{expr!r} in a turn that it answers as a whole")
        gens = [expr for expr in turn if isinstance(expr, SglGen)]
        chunks = iter(await self._answer_turn(turn, gens) if gens else ())
        for expr in turn:
            if isinstance(expr, SglGen):
                answer = Answer(self.document, expr)
                answer.take(next(chunks))
                answer.finish()
            else:
                await self._perform(expr)

    async def _answer_turn(self, turn: Sequence[SglExpr], gens: Sequence[SglGen]) -> list[Chunk]:
        every = [resolve(self.defaults, gen, ()) for gen in gens]
        for params in every:
            if params.n > 1 or params.regex or params.json_schema or params.ebnf:
                raise UnsupportedFeature(
                    self.backend, "constraints or several samples in a turn that it answers as a whole"
                )
        pattern = turn_pattern(turn, [params.stop for params in every])
        whole = Chunk("", {})
        for _ in range(ATTEMPTS):
            whole = await self._whole(dataclasses.replace(every[0], max_new_tokens=self.api_tokens or 0, stop=()))
            texts = match_turn(pattern, whole.text)
            if texts is not None:
                none = {"finish_reason": {"type": "stop"}, "prompt_tokens": 0, "completion_tokens": 0}
                return [Chunk(text, none if i else whole.meta_info) for i, text in enumerate(texts)]
        raise SpeculationFailed(
            f"{ATTEMPTS} answers did not fit the assistant's turn {list(turn)}; the last one was {whole.text[:500]!r}"
        )

    async def _whole(self, params: SamplingParams) -> Chunk:
        text, meta_info = "", {}
        async with aclosing(self.backend.generate(self.document.prompt(), params)) as chunks:
            async for chunk in chunks:
                text, meta_info = text + chunk.text, chunk.meta_info
        return Chunk(text, meta_info)

    async def _select(self, select: SglSelect) -> None:
        document, method = self.document, select.choices_method
        if not document.text:
            raise ValueError("a choice needs text before it: the first token of a text has no probability")
        document.log.append(GenerationStarted(select.name))
        if self.backend.scores_choices:
            scores = await self.backend.score(
                document.prompt(), select.choices, alone=method.requires_unconditional_logprobs
            )
            choice = decide(method, select.choices, scores)
        elif method is token_length_normalized:
            choice = ChoicesDecision(*await self.backend.choose(document.prompt(), select.choices))
        else:
            raise UnsupportedFeature(self.backend, f"{method}, which compares log-probabilities")
        self._ahead = Lookahead()
        document.begin(select.name)
        document.append(choice.decision, "chosen", select.name)
        document.set(select.name, choice.decision, choice.meta_info)
