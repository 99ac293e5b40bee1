"""A chat template made of the one that comes with a model, which is a Jinja program over whole conversations.

The program is rendered, in a sandbox, for conversations of marks; what stands between the marks is the markup around each role.
A template is accepted only if the markup found in this way puts longer conversations together exactly as the program does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sgl_jupyter.backends.base import ModelTemplate
from sgl_jupyter.lang.jinja import MARK, NotConcatenative, Renderer, leading_token
from sgl_jupyter.lang.markup import ChatTemplate, ChatTemplateStyle

_TALK = ("user", "assistant", "user", "assistant", "user")


def derive(own: ModelTemplate, name: str = "model", image_token: str = ChatTemplate.image_token) -> ChatTemplate:
    """The markup around each role, as the model's own template writes it; `image_token` is for one that takes no images.

    A template that refuses system messages, or moves them about, has them at the beginning of the first user message.

    Raises:
        NotConcatenative: the template fails, or its markup around a message depends on more than the roles before it.
    """
    render = Renderer(own)
    first, end_of_user = render.pieces(["user"])
    _, to_assistant, to_user, *_ = render.pieces(_TALK)
    beginning = own.bos_token if first.startswith(own.bos_token) else ""
    first = first.removeprefix(beginning)

    to_assistant = _to_assistant(to_assistant, render.pieces(["user"], generate=True)[-1])
    user_suffix = end_of_user if to_assistant.startswith(end_of_user) else ""
    assistant_prefix = to_assistant.removeprefix(user_suffix)
    assistant_suffix, user_prefix = _around_user(first, to_user, render.pieces(["user", "assistant"])[-1])
    if not first.endswith(user_prefix):
        raise NotConcatenative("its first user message is not written like the others")
    template = ChatTemplate(
        name,
        None,
        {
            "user": (user_prefix, user_suffix),
            "assistant": (assistant_prefix, assistant_suffix),
            "system": ("", "\n\n"),
        },
        stop_str=tuple(dict.fromkeys(filter(None, (own.eos_token, leading_token(assistant_suffix))))),
        image_token=render.image_token() or image_token,
        style=ChatTemplateStyle.LLAMA2,
        beginning=beginning,
        without_system=first.removesuffix(user_prefix),
    )
    _verify(template, render, _TALK)
    return _with_system(template, render)


def _to_assistant(in_history: str, to_generate: str) -> str:
    """What stands between a user's text and the assistant's.

    Where it is more for a generation, such as an opened `<think>`, that is left to the model; where it is less by white space,
    the model writes that itself.
    """
    if to_generate.startswith(in_history):
        return in_history
    if in_history.startswith(to_generate) and not in_history.removeprefix(to_generate).strip():
        return to_generate
    raise NotConcatenative("it writes answers that are past otherwise than those to come")


def _around_user(first: str, to_user: str, end_of_assistant: str) -> tuple[str, str]:
    """What stands between an assistant's text and a user's, split into the suffix of the one and the prefix of the other."""
    user_prefix = to_user.removeprefix(end_of_assistant)
    if to_user.startswith(end_of_assistant) and first.endswith(user_prefix):
        return end_of_assistant, user_prefix
    common = 0
    while common < min(len(first), len(to_user)) and first[-common - 1] == to_user[-common - 1]:
        common += 1
    return to_user[: len(to_user) - common], to_user[len(to_user) - common :]


def _with_system(template: ChatTemplate, render: Renderer) -> ChatTemplate:
    """The template with the markup of system messages, where it can be written by itself."""
    user_prefix, _ = template.role_prefix_and_suffix["user"]
    try:
        before, after, *_ = render.pieces(["system", *_TALK])
    except NotConcatenative:
        return template
    before = before.removeprefix(template.beginning)
    if after.endswith(user_prefix):
        style, markup = ChatTemplateStyle.PLAIN, (before, after.removesuffix(user_prefix))
    else:
        style, markup = ChatTemplateStyle.LLAMA2, (before.removeprefix(user_prefix), after)
    found = replace(template, style=style, role_prefix_and_suffix={**template.role_prefix_and_suffix, "system": markup})
    default = template.without_system
    if (
        style == ChatTemplateStyle.PLAIN
        and all(markup)
        and default.startswith(markup[0])
        and default.endswith(markup[1])
    ):
        prompt = default.removeprefix(markup[0]).removesuffix(markup[1])
        found = replace(found, default_system_prompt=prompt, without_system="")
    try:
        _verify(found, render, ("system", *_TALK))
    except NotConcatenative:
        return template
    return found


def _verify(template: ChatTemplate, render: Renderer, roles: Sequence[str]) -> None:
    """Raises NotConcatenative if the template does not write a conversation as the model's own one does."""
    history: list[dict[str, Any]] = []
    written = template.opening(roles[0])
    if template.default_system_prompt is not None and roles[0] != "system":
        written += template.default_system_prompt.join(template.role_prefix_and_suffix["system"])
        history.append({"role": "system"})
    for role in roles:
        prefix, suffix = template.get_prefix_and_suffix(role, history)
        written += f"{prefix}{MARK}{suffix}"
        history.append({"role": role})
    rendered = render.pieces(roles)
    pieces = written.split(MARK)
    for place, (mine, theirs) in enumerate(zip(pieces, rendered, strict=True)):
        white_space = place < len(roles) and roles[place] == "assistant" and theirs.startswith(mine)
        if mine != theirs and not (white_space and not theirs.removeprefix(mine).strip()):
            raise NotConcatenative(f"{mine!r} stands where it writes {theirs!r}")
