"""What a chat template is: the markup that stands around the messages of each role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ChatTemplateStyle(StrEnum):
    """LLAMA2 is Llama 2's: a system message that comes first stands inside the first user message."""

    PLAIN = "plain"
    LLAMA2 = "llama2"


@dataclass(frozen=True)
class ChatTemplate:
    """A role's text stands between its prefix and its suffix; a role that is not named has neither.

    `beginning` opens a conversation whatever its first message; `without_system` stands after it where that is no system message.
    """

    name: str
    default_system_prompt: str | None
    role_prefix_and_suffix: Mapping[str, Sequence[str]]
    stop_str: Sequence[str] = ()
    image_token: str = "<image>"
    audio_token: str = "<audio>"
    """SGLang's; there is no audio in the language yet."""
    style: ChatTemplateStyle = ChatTemplateStyle.PLAIN
    beginning: str = ""
    without_system: str = ""

    def opening(self, role: str) -> str:
        """What stands before the markup of a text's first message."""
        return self.beginning + ("" if role == "system" else self.without_system)

    def get_prefix_and_suffix(self, role: str, history: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """The markup around a message of `role` that comes after the messages `history`."""
        prefix, suffix = self.role_prefix_and_suffix.get(role, ("", ""))
        if self.style == ChatTemplateStyle.LLAMA2 and role == "system" and not history:
            return self.role_prefix_and_suffix["user"][0] + prefix, suffix
        if self.style == ChatTemplateStyle.LLAMA2 and role == "user" and [m["role"] for m in history] == ["system"]:
            return "", suffix
        return prefix, suffix

    def get_prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """A whole conversation as text. A system message whose content is None is the default one, where there is one."""
        text, history = "", []
        for message in messages:
            content = self.default_system_prompt if message["content"] is None else message["content"]
            if content is None:
                continue
            prefix, suffix = self.get_prefix_and_suffix(message["role"], history)
            text += ("" if text else self.opening(message["role"])) + f"{prefix}{content}{suffix}"
            history.append(message)
        return text
