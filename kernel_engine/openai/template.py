"""The chat template in effect: the tokenizer's own, or what `--chat-template` names; messages in, prompt text out.

Templates come with models and are not trusted: transformers renders them in Jinja's sandbox, and a request can give them
variables but never another template.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerFast

from ..errors import LoadError, RequestError
from ..source import first_line
from .named_templates import NAMED, Turns

RESERVED = {"messages", *inspect.signature(PreTrainedTokenizerFast.apply_chat_template).parameters}
"""Names that `chat_template_kwargs` may not set, since they say how to render rather than what."""
FAILURES = (
    jinja2.TemplateError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    ArithmeticError,
    RecursionError,
)
"""What rendering may raise for messages that a template does not take."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """Renders conversations. `stop` holds the strings that end an answer besides the model's stop tokens."""

    tokenizer: PreTrainedTokenizerFast
    override: str | None = None
    stop: tuple[str, ...] = ()

    @property
    def source(self) -> str | None:
        """The Jinja source; None if the model has none and none was given."""
        own = self.tokenizer.chat_template
        return self.override or (own.get("default") if isinstance(own, dict) else own)

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None = None,
        variables: dict[str, Any] | None = None,
        *,
        continue_final: bool = False,
    ) -> str:
        """The prompt that an answer to `messages` follows, or, with `continue_final`, more of the last message.

        Raises `RequestError` if there is no template, or the template refuses the messages.
        """
        if self.source is None:
            raise RequestError("this model has no chat template: start its server with --chat-template.")
        for name in variables or {}:
            if name in RESERVED:
                raise RequestError(f"chat_template_kwargs must not hold {name!r}.", param="chat_template_kwargs")
        try:
            return self._render(messages, tools, variables or {}, continue_final)
        except FAILURES as error:
            message = f"the chat template does not take these messages: {first_line(error)}"
            raise RequestError(message, param="messages") from None

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt, which spells its own special tokens."""
        return self.tokenizer(prompt, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]

    def _render(
        self, messages: list[dict[str, Any]], tools: list[Any] | None, variables: dict[str, Any], continue_final: bool
    ) -> str:
        return self.tokenizer.apply_chat_template(  # pyright: ignore[reportReturnType]
            messages,
            tools=tools,
            chat_template=self.override,
            add_generation_prompt=not continue_final,
            continue_final_message=continue_final,
            tokenize=False,
            **variables,
        )


def load_template(name: str | None, tokenizer: PreTrainedTokenizerFast) -> ChatTemplate:
    """What `--chat-template` names: None, a built-in name, a Jinja file, or SGLang's JSON file.

    Raises `LoadError` if there is no such thing, or it is no template.
    """
    if name is None:
        return ChatTemplate(tokenizer)
    if name in NAMED:
        return _from_turns(NAMED[name], tokenizer)
    path = Path(name).expanduser()
    if not path.is_file():
        names = ", ".join(sorted(NAMED))
        raise LoadError(f"--chat-template {name!r} is neither a file nor a built-in template: {names}.")
    try:
        source = path.read_text()
        if path.suffix == ".json":
            return _from_turns(Turns.from_json(json.loads(source)), tokenizer)
        template = ChatTemplate(tokenizer, source)
        template._render([{"role": "user", "content": "a"}], None, {}, False)
        return template
    except (OSError, ValueError, jinja2.TemplateSyntaxError) as error:
        raise LoadError(f"--chat-template {name!r} cannot be used: {first_line(error)}") from None


def _from_turns(turns: Turns, tokenizer: PreTrainedTokenizerFast) -> ChatTemplate:
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]  # pyright: ignore[reportIndexIssue]
    return ChatTemplate(tokenizer, turns.jinja(begin=str(tokenizer.bos_token) if begins else ""), turns.stop)
