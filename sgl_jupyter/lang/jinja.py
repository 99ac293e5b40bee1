"""Renders a model's chat template, which is somebody else's program: in jinja2's sandbox, for conversations of marks."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes
from jinja2.parser import Parser

from sgl_jupyter.backends.base import ModelTemplate

MARK = "\ue000mark\ue001"
"""Stands for a message's text: characters for private use, which no template looks for."""
_SPECIAL_TOKEN = re.compile(r"\s*(<[^<>\s]+>|\[/?[A-Z_]+\])")


class NotConcatenative(ValueError):
    """A chat template fails, or what it writes around a message depends on more than the roles before it."""


class Renderer:
    """One model's template, compiled.

    Raises:
        NotConcatenative: it is no Jinja program.
    """

    def __init__(self, own: ModelTemplate) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self._tokens = {"bos_token": own.bos_token, "eos_token": own.eos_token}
        try:
            self._template = environment.from_string(own.source)
        except jinja2.TemplateError as error:
            raise NotConcatenative(f"it is no Jinja template ({error})") from error

    def pieces(self, roles: Sequence[str], generate: bool = False) -> list[str]:
        """The markup before, between and after the texts of messages of these roles; with `generate`, an answer is to follow.

        Raises:
            NotConcatenative: the template refuses such a conversation, or does not write each text once.
        """
        text = self._render([{"role": role, "content": MARK} for role in roles], generate)
        pieces = text.split(MARK)
        if len(pieces) != len(roles) + 1:
            raise NotConcatenative(f"of {len(roles)} messages it writes {len(pieces) - 1}")
        return pieces

    def image_token(self) -> str | None:
        """What stands in the text for an image, where the template takes any."""
        content = [{"type": "image"}, {"type": "text", "text": MARK}]
        try:
            text = self._render([{"role": "user", "content": content}], False)
            without = self.pieces(["user"])[0]
        except NotConcatenative:
            return None
        before = text.partition(MARK)[0]
        return before.removeprefix(without) or None if before.startswith(without) and MARK in text else None

    def _render(self, messages: list[dict[str, Any]], generate: bool) -> str:
        try:
            return self._template.render(messages=messages, add_generation_prompt=generate, **self._tokens)
        except Exception as error:  # whatever the template does wrong
            raise NotConcatenative(f"it cannot write a plain conversation ({error})") from error


def leading_token(text: str) -> str | None:
    """The special token with which a piece of markup begins, if it does."""
    found = _SPECIAL_TOKEN.match(text)
    return found and found.group(1)


class _Generation(jinja2.ext.Extension):
    """transformers' `{% generation %}` marks the assistant's text for training; here it says nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """jinja2's own filter writes for HTML, and so escapes what a model should read plainly."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
