"""What each expression does: the text, messages and variables of one state, as they grow.

Expressions are executed one after another on the background loop; whatever becomes visible is written to the event log in the
same step. Other threads only read.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from sgl_jupyter.backends.base import BaseBackend, SamplingParams
from sgl_jupyter.lang.chat_template import ChatTemplate
from sgl_jupyter.lang.choices import decide
from sgl_jupyter.lang.events import EventLog, GenerationStarted, Origin, RoleClosed, RoleOpened, Text, VariableDone
from sgl_jupyter.lang.ir import (
    SglCommitLazy,
    SglConstantText,
    SglExpr,
    SglGen,
    SglRoleBegin,
    SglRoleEnd,
    SglSelect,
    SglSetVar,
    SglVarScopeBegin,
    SglVarScopeEnd,
)
from sgl_jupyter.lang.sampling import resolve


@dataclass(frozen=True)
class Span:
    """Where a variable stands in the text, in characters; `end` is None while it grows."""

    start: int
    end: int | None = None


@dataclass
class Interpreter:
    """One state's document, and how expressions extend it."""

    backend: BaseBackend
    template: ChatTemplate
    defaults: SamplingParams
    log: EventLog = field(default_factory=EventLog)
    text: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str | None, Any] = field(default_factory=dict)
    meta_info: dict[str | None, dict[str, Any] | None] = field(default_factory=dict)
    spans: dict[str | None, Span] = field(default_factory=dict)
    content_start: int = 0
    """Where the content of the open message begins in the text."""

    def fork(self) -> Interpreter:
        """A copy that goes on by itself, with a log that begins here."""
        return Interpreter(
            self.backend,
            self.template,
            self.defaults,
            text=self.text,
            messages=list(self.messages),
            variables=dict(self.variables),
            meta_info=dict(self.meta_info),
            spans=dict(self.spans),
            content_start=self.content_start,
        )

    async def execute(self, expr: SglExpr) -> None:
        match expr:
            case SglConstantText(value):
                self._append(value, "prompt")
            case SglGen():
                await self._generate(expr)
            case SglSelect():
                await self._select(expr)
            case SglRoleBegin(role):
                self._open_message(role)
            case SglRoleEnd(role):
                self._close_message(role)
            case SglVarScopeBegin(name):
                self.spans[name] = Span(len(self.text))
            case SglVarScopeEnd(name):
                self._set(name, self._read(name))
            case SglSetVar(name, value):
                self.spans.pop(name, None)
                self._set(name, value)
            case SglCommitLazy():
                await self.backend.cache_prefix(self.text)
            case _:
                raise TypeError(f"unknown expression {expr!r}")

    async def _generate(self, gen: SglGen) -> None:
        params = resolve(self.defaults, gen, self.template.stop_str)
        self.log.append(GenerationStarted(gen.name))
        if params.n > 1:
            await self._sample(gen.name, params)
            return
        self.spans[gen.name] = Span(len(self.text))
        self.meta_info[gen.name] = None
        try:
            async with aclosing(self.backend.generate(self.text, params)) as chunks:
                async for chunk in chunks:
                    self.meta_info[gen.name] = chunk.meta_info
                    self._append(chunk.text, "generated", gen.name)
        except asyncio.CancelledError:
            self._set(gen.name, self._read(gen.name), self.meta_info[gen.name])
            raise
        self._set(gen.name, self._read(gen.name), self.meta_info[gen.name])

    async def _sample(self, name: str | None, params: SamplingParams) -> None:
        """Several answers at once: the text goes on with the first, the variable holds them all."""
        samples = await self.backend.sample(self.text, params)
        self.spans[name] = Span(len(self.text))
        self._append(samples[0].text, "generated", name)
        meta_infos = [sample.meta_info for sample in samples]
        completion_tokens = sum(meta_info.get("completion_tokens", 0) for meta_info in meta_infos)
        meta_info = {**meta_infos[0], "completion_tokens": completion_tokens, "samples": meta_infos}
        self._set(name, [sample.text for sample in samples], meta_info)

    async def _select(self, select: SglSelect) -> None:
        if not self.text:
            raise ValueError("a choice needs text before it: the first token of a text has no probability")
        self.log.append(GenerationStarted(select.name))
        method = select.choices_method
        scores = await self.backend.score(self.text, select.choices, alone=method.requires_unconditional_logprobs)
        choice = decide(method, select.choices, scores)
        self.spans[select.name] = Span(len(self.text))
        self._append(choice.decision, "chosen", select.name)
        self._set(select.name, choice.decision, choice.meta_info)

    def _open_message(self, role: str) -> None:
        default_prompt = self.template.default_system_prompt
        if default_prompt is not None and not self.messages and role != "system":
            self._open_message("system")
            self._append(default_prompt, "prompt")
            self._close_message("system")
        prefix, _ = self.template.get_prefix_and_suffix(role, self.messages)
        self.log.append(RoleOpened(role))
        self._append(prefix, "template")
        self.content_start = len(self.text)

    def _close_message(self, role: str) -> None:
        content = self.text[self.content_start :].lstrip()
        _, suffix = self.template.get_prefix_and_suffix(role, self.messages)
        self._append(suffix, "template")
        self.messages.append({"role": role, "content": content})
        self.log.append(RoleClosed(role))

    def _append(self, text: str, origin: Origin, variable: str | None = None) -> None:
        if text:
            self.text += text
            self.log.append(Text(text, origin, variable))

    def _read(self, name: str | None) -> str:
        return self.text[self.spans[name].start :]

    def _set(self, name: str | None, value: Any, meta_info: dict[str, Any] | None = None) -> None:
        self.variables[name] = value
        self.meta_info[name] = meta_info
        if name in self.spans:
            self.spans[name] = Span(self.spans[name].start, len(self.text))
        self.log.append(VariableDone(name, value, meta_info))
