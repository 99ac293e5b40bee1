"""Chat templates by name, for models that come without one: what stands before and after each role's text.

Names and texts are SGLang's, whose `--chat-template` they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Around = tuple[str, str]
"""What stands before a text, and what after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """A conversation as turns one after the other. A tool's turn is written as the user's."""

    system: Around
    user: Around
    assistant: Around
    default_system: str | None = None
    """A system prompt for conversations that begin without one."""
    stop: tuple[str, ...] = ()

    def jinja(self, begin: str) -> str:
        """The Jinja source of this template, every prompt starting with `begin`."""
        around = {"system": self.system, "user": self.user, "assistant": self.assistant}
        default = "" if self.default_system is None else self.default_system.join(self.system)
        return "".join(
            [
                "{%- set around = " + json.dumps(around) + " %}",
                "{{- " + json.dumps(begin) + " }}",
                "{%- if messages[0].role != 'system' %}{{- " + json.dumps(default) + " }}{%- endif %}",
                "{%- for message in messages %}",
                "{%- set before, after = around.get(message.role, around.user) %}",
                "{{- before + message.content + after }}",
                "{%- endfor %}",
                "{%- if add_generation_prompt %}{{- around.assistant[0] }}{%- endif %}",
            ]
        )

    @classmethod
    def from_json(cls, raw: Any) -> Turns:
        """SGLang's JSON file; raises `ValueError` for what is not of its CHATML style."""
        if not isinstance(raw, dict) or raw.get("sep_style") != "CHATML":
            raise ValueError('a JSON template must be an object with "sep_style": "CHATML"; write others as Jinja.')
        texts = [raw.get(name) for name in ("system", "user", "assistant", "sep")]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("system, user, assistant and sep must be strings.")
        stop = raw.get("stop_str") or []
        stops = [stop] if isinstance(stop, str) else stop
        *roles, separator = map(str, texts)
        system, user, assistant = ((f"{role}\n", f"{separator}\n") for role in roles)
        return cls(system=system, user=user, assistant=assistant, stop=tuple(map(str, stops)))


def _marked(mark: str, end: str, **options: Any) -> Turns:
    """A template that marks every role alike: `mark` has the role's name for `ROLE`."""
    system, user, assistant = ((mark.replace("ROLE", role), end) for role in ("system", "user", "assistant"))
    return Turns(system=system, user=user, assistant=assistant, **options)


HELPFUL = "You are a helpful assistant."
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
NAMED: dict[str, Turns] = {
    "default": Turns(system=("SYSTEM:", "\n"), user=("USER:", "\n"), assistant=("ASSISTANT:", "\n"), stop=("\nUSER:",)),
    "chatml": _marked("<|im_start|>ROLE\n", "<|im_end|>\n", stop=("<|im_end|>",)),
    "qwen": _marked("<|im_start|>ROLE\n", "<|im_end|>\n", stop=("<|im_end|>",), default_system=HELPFUL),
    "llama-3-instruct": _marked("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>", stop=("<|eot_id|>",)),
    "granite-3-instruct": _marked("<|start_of_role|>ROLE<|end_of_role|>", "<|end_of_text|>", stop=("<|end_of_text|>",)),
    "mistral": Turns(
        system=("[SYSTEM_PROMPT] ", " [/SYSTEM_PROMPT]"),
        user=("[INST] ", " [/INST]"),
        assistant=("", " </s><s>"),
        stop=("</s>",),
    ),
    "gemma-it": Turns(
        system=("", ""),
        user=("<start_of_turn>user\n", "<end_of_turn>\n"),
        assistant=("<start_of_turn>model\n", "<end_of_turn>\n"),
        stop=("<end_of_turn>",),
    ),
    "vicuna_v1.1": Turns(
        system=("", " "),
        user=("USER:", " "),
        assistant=("ASSISTANT:", "</s>"),
        default_system=VICUNA_SYSTEM,
        stop=("</s>",),
    ),
    "deepseek-v3": Turns(
        system=("", ""),
        user=("<｜User｜>", ""),
        assistant=("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        stop=("<｜end▁of▁sentence｜>",),
    ),
    "yi-1.5": Turns(
        system=("", ""),
        user=("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
        assistant=("", "<|im_end|>\n"),
        stop=("<|im_end|>",),
    ),
}
