"""Chat templates by their names, and the one that a backend's programs use.

A template is data and never changes. Which ones there are is SGLang's list, to which a process may add its own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from sgl_jupyter.backends.base import BaseBackend, ModelTemplate
from sgl_jupyter.lang.known_templates import RULES, TEMPLATES
from sgl_jupyter.lang.markup import ChatTemplate as ChatTemplate
from sgl_jupyter.lang.markup import ChatTemplateStyle as ChatTemplateStyle

Rule = Callable[[str], str | None]
"""Tells the name of the template for a model's path, if it knows it."""
AnyRule = TypeVar("AnyRule", bound=Rule)


class Registry:
    """The templates that can be named, and the rules that choose one by a model's path: those that were added come first."""

    def __init__(self) -> None:
        self.templates = {template.name: template for template in TEMPLATES}
        self.rules: list[Rule] = []

    def name_for(self, model_path: str) -> str:
        for rule in self.rules:
            if (name := rule(model_path)) is not None:
                return name
        known = (name for name, pattern in RULES if re.search(pattern, model_path, re.IGNORECASE))
        return next(known, "default")


_registry = Registry()


def register_chat_template(template: ChatTemplate) -> None:
    """Let `template` be known by its name, from now on, in all of this process."""
    _registry.templates[template.name] = template


def register_chat_template_matching_function(rule: AnyRule) -> AnyRule:
    """Let `rule` choose the template of models whose path it knows. Can be used as a decorator."""
    _registry.rules.insert(0, rule)
    return rule


def get_chat_template(name: str) -> ChatTemplate:
    """The template of that name. Raises KeyError, listing the names, where there is none."""
    if name not in _registry.templates:
        raise KeyError(f"no chat template is named {name!r}; there are: {', '.join(sorted(_registry.templates))}")
    return _registry.templates[name]


def get_chat_template_by_model_path(model_path: str) -> ChatTemplate:
    """The template of the first rule that matches the path or hub id; `default` where none does."""
    return get_chat_template(_registry.name_for(model_path))


def template_of(backend: BaseBackend) -> ChatTemplate:
    """The chat template that programs on `backend` use.

    The one that the backend is given; else SGLang's for the model's path; else the model's own; else SGLang's for its kind; else
    SGLang's default, with a warning.
    """
    if isinstance(backend.chat_template, ChatTemplate):
        return backend.chat_template
    if backend.chat_template:
        return get_chat_template(backend.chat_template)
    by_path = get_chat_template_by_model_path(backend.model_path)
    if by_path.name != "default" or backend.is_chat_model is not None or not backend.model_path:
        return by_path
    return _template_of_model(backend.model_path, backend.model_type, backend.model_template)


@lru_cache(maxsize=64)
def _template_of_model(model_path: str, model_type: str, own: ModelTemplate | None) -> ChatTemplate:
    """The model's own template, or that of its kind. It is kept: the start of a program costs nothing, and a warning comes once."""
    from sgl_jupyter.lang.model_template import NotConcatenative, derive  # jinja2 only where it is needed

    of_kind = get_chat_template_by_model_path(model_type)
    problem = "has no chat template that can be read here"
    if own is not None:
        try:
            return derive(own, model_path, of_kind.image_token)
        except NotConcatenative as error:
            problem = f"has a chat template that cannot be used: {error}"
    if of_kind.name != "default":
        return of_kind
    warnings.warn(
        f"{model_path!r} {problem}. Roles are written as USER: and ASSISTANT:, which the model may not know; "
        f"give its backend chat_template_name=..., one of {', '.join(_registry.templates)}",
        stacklevel=2,
    )
    return of_kind
