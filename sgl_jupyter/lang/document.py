"""What a state has come to: its text, messages, images and variables, as they grow.

One executor writes; other threads only read. Whatever becomes visible is written to the event log in the same step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from sgl_jupyter.backends.base import Image, Prompt, Video
from sgl_jupyter.lang.events import EventLog, Origin, Reasoning, RoleClosed, RoleOpened, Text, VariableDone
from sgl_jupyter.lang.markup import ChatTemplate


@dataclass(frozen=True)
class Span:
    """Where a variable stands, in characters of the document's text or of its reasoning; `end` is None while it grows."""

    start: int
    end: int | None = None
    within: Literal["text", "reasoning"] = "text"


@dataclass(frozen=True)
class Shown:
    """An image or a video, and where the token that stands for it is in the text."""

    start: int
    end: int
    media: Image | Video


@dataclass
class Document:
    """One state's document. `template` says how roles become text."""

    template: ChatTemplate
    log: EventLog = field(default_factory=EventLog)
    text: str = ""
    reasoning: str = ""
    """All that was thought, one generation after another. It is no part of the text."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str | None, Any] = field(default_factory=dict)
    meta_info: dict[str | None, dict[str, Any] | None] = field(default_factory=dict)
    spans: dict[str | None, Span] = field(default_factory=dict)
    parsers: dict[str | None, Callable[[str], Any]] = field(default_factory=dict)
    """What makes objects of the variables that have a schema."""
    shown: list[Shown] = field(default_factory=list)
    role: str | None = None
    """The role of the open message."""
    content_start: int = 0
    """Where the content of the open message begins in the text."""

    def fork(self) -> Document:
        """A copy that goes on by itself, with a log that begins here."""
        return Document(
            self.template,
            text=self.text,
            reasoning=self.reasoning,
            messages=list(self.messages),
            variables=dict(self.variables),
            meta_info=dict(self.meta_info),
            spans=dict(self.spans),
            parsers=dict(self.parsers),
            shown=list(self.shown),
            role=self.role,
            content_start=self.content_start,
        )

    def prompt(self) -> Prompt:
        """What a request is to continue."""
        content = self.text[self.content_start :] if self.role else ""
        return Prompt(self.text, tuple(self.messages), self.role, content, tuple(shown.media for shown in self.shown))

    def read(self, span: Span, offset: int = 0) -> str:
        """The text of a span, from `offset` on, as far as it is there."""
        return self._source(span)[span.start + offset : span.end]

    def begin(self, name: str | None, within: Literal["text", "reasoning"] = "text") -> None:
        """What is appended from here on is the variable's."""
        self.spans[name] = Span(len(self.text if within == "text" else self.reasoning), within=within)

    def append(
        self, text: str, origin: Origin, variable: str | None = None, completion_tokens: int | None = None
    ) -> None:
        if text:
            self.text += text
            self.log.append(Text(text, origin, variable, completion_tokens))

    def think(self, text: str, variable: str | None) -> None:
        """More of the reasoning that leads to `variable`."""
        if text:
            self.reasoning += text
            self.log.append(Reasoning(text, variable))

    def show(self, media: Image | Video) -> None:
        start, token = len(self.text), self.template.image_token
        self.text += token
        self.log.append(Text(token, "template", media=media))
        self.shown.append(Shown(start, len(self.text), media))

    def end(self, name: str | None, meta_info: dict[str, Any] | None = None) -> None:
        """The variable that began is what was appended since."""
        self.set(name, self.read(self.spans[name]), meta_info)

    def set(self, name: str | None, value: Any, meta_info: dict[str, Any] | None = None) -> None:
        """The variable has its value, and ends here where it is text."""
        self.variables[name] = value
        self.meta_info[name] = meta_info
        if span := self.spans.get(name):
            self.spans[name] = Span(span.start, len(self._source(span)), span.within)
        self.log.append(VariableDone(name, value, meta_info))

    def open_message(self, role: str) -> None:
        default_prompt = self.template.default_system_prompt
        if default_prompt is not None and not self.messages and role != "system":
            self.open_message("system")
            self.append(default_prompt, "prompt")
            self.close_message("system")
        prefix, _ = self.template.get_prefix_and_suffix(role, self.messages)
        self.log.append(RoleOpened(role))
        self.append(("" if self.text else self.template.opening(role)) + prefix, "template")
        self.role, self.content_start = role, len(self.text)

    def close_message(self, role: str) -> None:
        content = self._content()
        _, suffix = self.template.get_prefix_and_suffix(role, self.messages)
        self.append(suffix, "template")
        self.messages.append({"role": role, "content": content})
        self.role = None
        self.log.append(RoleClosed(role))

    def _content(self) -> str | list[dict[str, Any]]:
        """The open message's content in OpenAI's form: its text, or texts and images in their order."""
        shown = [each for each in self.shown if each.start >= self.content_start]
        if not shown:
            return self.text[self.content_start :].lstrip()
        parts: list[dict[str, Any]] = []
        place = self.content_start
        for each in shown:
            parts.append({"type": "text", "text": self.text[place : each.start]})
            frames = each.media.frames if isinstance(each.media, Video) else (each.media,)
            parts += [{"type": "image_url", "image_url": {"url": frame.url}} for frame in frames]
            place = each.end
        parts.append({"type": "text", "text": self.text[place:]})
        return [part for part in parts if part.get("text") != ""]

    def _source(self, span: Span) -> str:
        return self.text if span.within == "text" else self.reasoning
