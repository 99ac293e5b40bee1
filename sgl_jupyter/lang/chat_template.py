"""How roles become text: the chat templates, by SGLang's names, and the rules that choose one for a backend.

A template is data and never changes. Rules are tried in order; the first that matches wins.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from sgl_jupyter.backends.base import BaseBackend, ModelTemplate


@dataclass(frozen=True)
class ChatTemplate:
    """A role's text stands between its prefix and its suffix; a role that is not named has neither.

    `style` "llama2" is Llama 2's: a leading system message stands inside the first user message. `beginning` opens a conversation
    whatever its first message; `without_system` stands after it where that is no system message.
    """

    name: str
    role_prefix_and_suffix: Mapping[str, tuple[str, str]]
    default_system_prompt: str | None = None
    stop_str: tuple[str, ...] = ()
    image_token: str = "<image>"
    style: Literal["plain", "llama2"] = "plain"
    beginning: str = ""
    without_system: str = ""

    def opening(self, role: str) -> str:
        """What stands before the markup of a text's first message."""
        return self.beginning + ("" if role == "system" else self.without_system)

    def get_prefix_and_suffix(self, role: str, history: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """The markup around a message of `role` that comes after the messages `history`."""
        prefix, suffix = self.role_prefix_and_suffix.get(role, ("", ""))
        if self.style == "llama2" and role == "system" and not history:
            return self.role_prefix_and_suffix["user"][0] + prefix, suffix
        if self.style == "llama2" and role == "user" and [m["role"] for m in history] == ["system"]:
            return "", suffix
        return prefix, suffix


def _roles(prefix: str, suffix: str) -> dict[str, tuple[str, str]]:
    """Markup that is the same for each role but for the role's name, written ROLE in `prefix`."""
    return {role: (prefix.replace("ROLE", role), suffix) for role in ("system", "user", "assistant")}


_CHATML = _roles("<|im_start|>ROLE\n", "<|im_end|>\n")
_LLAMA3 = _roles("<|start_header_id|>ROLE<|end_header_id|>\n\n", "<|eot_id|>")
_DEEPSEEK = {"user": ("<｜User｜>", ""), "assistant": ("<｜Assistant｜>", "<｜end▁of▁sentence｜>")}
_INSTRUCT = {"user": ("[INST] ", " [/INST]"), "assistant": ("", " </s><s>")}
_MINICPM = {"system": ("", " "), "user": ("user:", " "), "assistant": ("assistant:", "</s>")}
_COMMAND_R = "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>"
_HELPFUL = "You are a helpful assistant."
_IM_END = ("<|im_end|>",)

_TEMPLATES = (
    ChatTemplate("default", {"system": ("SYSTEM:", "\n"), "user": ("USER:", "\n"), "assistant": ("ASSISTANT:", "\n")}),
    ChatTemplate("claude", {"user": ("\n\nHuman: ", ""), "assistant": ("\n\nAssistant:", "")}),
    ChatTemplate("chatml", _CHATML, stop_str=_IM_END),
    ChatTemplate("qwen", _CHATML, _HELPFUL, _IM_END),
    ChatTemplate("qwen2-vl", _CHATML, _HELPFUL, _IM_END, image_token="<|vision_start|><|image_pad|><|vision_end|>"),
    ChatTemplate("chatml-llava", _CHATML, _HELPFUL, _IM_END, image_token="<image>\n"),
    ChatTemplate(
        "vicuna_v1.1",
        {"system": ("", " "), "user": ("USER:", " "), "assistant": ("ASSISTANT:", "</s>")},
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        image_token=" <image>\n",
    ),
    ChatTemplate("llama-2-chat", {"system": ("<<SYS>>\n", "\n<</SYS>>\n\n"), **_INSTRUCT}, style="llama2"),
    ChatTemplate(
        "mistral",
        {"system": ("[SYSTEM_PROMPT] ", " [/SYSTEM_PROMPT]"), **_INSTRUCT},
        stop_str=("</s>",),
        image_token="[IMG]",
    ),
    ChatTemplate("llama-3-instruct", _LLAMA3, stop_str=("<|eot_id|>",), image_token="<|image|>"),
    ChatTemplate("llama-3-instruct-llava", _LLAMA3, stop_str=("<|eot_id|>",), image_token="<image>\n"),
    ChatTemplate(
        "llama-4",
        _roles("<|header_start|>ROLE<|header_end|>\n\n", "<|eot|>"),
        stop_str=("<|eot|>",),
        image_token="<|image|>",
    ),
    ChatTemplate(
        "yi-1.5",
        {"user": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"), "assistant": ("", "<|im_end|>\n")},
        stop_str=_IM_END,
    ),
    ChatTemplate(
        "yi-vl",
        {"system": ("", "\n\n"), "user": ("### Human:", "\n"), "assistant": ("### Assistant:", "\n")},
        image_token=" <image_placeholder>\n",
    ),
    ChatTemplate(
        "gemma-it",
        {
            "user": ("<start_of_turn>user\n", "<end_of_turn>\n"),
            "assistant": ("<start_of_turn>model\n", "<end_of_turn>\n"),
        },
        image_token="<start_of_image>",
    ),
    ChatTemplate(
        "gemma-4-it",
        {"user": ("<|turn>user\n", "<turn|>\n"), "assistant": ("<|turn>model\n", "<turn|>\n")},
        image_token="<|image|>",
    ),
    ChatTemplate(
        "dbrx-instruct",
        {
            "system": ("<|im_start|>system\n", "<|im_end|>"),
            "user": ("\n<|im_start|>user\n", "<|im_end|>"),
            "assistant": ("\n<|im_start|>assistant\n", "<|im_end|>"),
        },
        stop_str=_IM_END,
    ),
    ChatTemplate(
        "c4ai-command-r",
        {
            "system": (_COMMAND_R.format("SYSTEM"), "<|END_OF_TURN_TOKEN|>"),
            "user": (_COMMAND_R.format("USER"), "<|END_OF_TURN_TOKEN|>"),
            "assistant": (_COMMAND_R.format("CHATBOT"), "<|END_OF_TURN_TOKEN|>"),
        },
    ),
    ChatTemplate(
        "granite-3-instruct",
        _roles("<|start_of_role|>ROLE<|end_of_role|>", "<|end_of_text|>"),
        stop_str=("<|end_of_text|>",),
    ),
    ChatTemplate("deepseek-v3", _DEEPSEEK, stop_str=("<｜end▁of▁sentence｜>",)),
    ChatTemplate("janus", _DEEPSEEK, stop_str=("<｜end▁of▁sentence｜>",), image_token="<image_placeholder>\n"),
    ChatTemplate("janus-pro", _DEEPSEEK, stop_str=("<｜end▁of▁sentence｜>",), image_token="<image_placeholder>\n"),
    ChatTemplate("minicpmv", _MINICPM, stop_str=("<|im_end|>", "<|endoftext|>"), image_token="(<image>./</image>)"),
    ChatTemplate("minicpmo", _MINICPM, stop_str=("<|im_end|>", "<|endoftext|>"), image_token="(<image>./</image>)"),
    ChatTemplate("internvl-2-5", _CHATML, stop_str=("<|im_end|>", "<|action_end|>")),
    ChatTemplate("interns1", _CHATML, stop_str=("<|im_end|>", "<|action_end|>")),
    ChatTemplate(
        "glm-4v",
        _roles("<|ROLE|>\n", "\n"),
        stop_str=("<|user|>", "<|endoftext|>", "<|observation|>"),
        image_token="<|image|>",
    ),
)

_RULES = (
    ("qwen2-vl", r"tiny-vision"),
    ("qwen", r"tiny-chat"),
    ("deepseek-v3", r"^(?!.*base).*deepseek-(v3|r1)"),
    ("claude", r"orion"),
    ("janus-pro", r"janus"),
    ("dbrx-instruct", r"dbrx.*instruct|instruct.*dbrx"),
    ("vicuna_v1.1", r"vicuna|llava-v1\.5|llava-next-video-7b"),
    ("llama-2-chat", r"llama-2.*chat|codellama.*instruct"),
    ("mistral", r"pixtral|(mistral|mixtral).*instruct"),
    ("llama-3-instruct", r"llama-3.*instruct"),
    ("chatml", r"tinyllama"),
    ("qwen2-vl", r"qwen.*vl"),
    ("glm-4v", r"glm[-_]?4(\.\d+)?v"),
    ("qwen", r"^(?!.*llava).*qwen.*(chat|instruct)"),
    ("chatml-llava", r"llava-v1\.6-34b|llava-v1\.6-yi-34b|llava-next-video-34b|llava-onevision-qwen2"),
    ("yi-vl", r"yi-vl"),
    ("yi-1.5", r"yi-1\.5.*chat"),
    ("gemma-4-it", r"gemma-4.*it"),
    ("gemma-it", r"gemma.*it|gemma-3"),
    ("minicpmv", r"minicpm-v"),
    ("minicpmo", r"minicpm-o"),
    ("c4ai-command-r", r"c4ai-command-r"),
    ("granite-3-instruct", r"granite.*instruct"),
    ("internvl-2-5", r"internvl2_5"),
    ("interns1", r"intern-s1|interns1"),
)

CHAT_TEMPLATES: Mapping[str, ChatTemplate] = {template.name: template for template in _TEMPLATES}


def get_chat_template(name: str) -> ChatTemplate:
    """The template of that name. Raises KeyError, listing the names, where there is none."""
    if name not in CHAT_TEMPLATES:
        raise KeyError(f"no chat template is named {name!r}; there are: {', '.join(sorted(CHAT_TEMPLATES))}")
    return CHAT_TEMPLATES[name]


def get_chat_template_by_model_path(model_path: str) -> ChatTemplate:
    """The template of the first rule that matches the path or hub id; `default` where none does."""
    for name, pattern in _RULES:
        if re.search(pattern, model_path, re.IGNORECASE):
            return CHAT_TEMPLATES[name]
    return CHAT_TEMPLATES["default"]


def template_of(backend: BaseBackend) -> ChatTemplate:
    """The chat template that programs on `backend` use.

    The one that the backend names; else SGLang's for the model's path; else the model's own; else SGLang's default, with a warning.
    """
    if backend.chat_template_name:
        return get_chat_template(backend.chat_template_name)
    if backend.is_chat_model is not None or not backend.model_path:
        return get_chat_template_by_model_path(backend.model_path)
    return _template_of_model(backend.model_path, backend.model_template)


@lru_cache(maxsize=64)
def _template_of_model(model_path: str, own: ModelTemplate | None) -> ChatTemplate:
    """What is found is kept: the start of a program costs nothing then, and a warning comes once."""
    from sgl_jupyter.lang.model_template import NotConcatenative, derive  # jinja2 only where it is needed

    by_path = get_chat_template_by_model_path(model_path)
    if by_path.name != "default":
        return by_path
    problem = "has no chat template that can be read here"
    if own is not None:
        try:
            return derive(own, model_path)
        except NotConcatenative as error:
            problem = f"has a chat template that cannot be used: {error}"
    warnings.warn(
        f"{model_path!r} {problem}. Roles are written as USER: and ASSISTANT:, which the model may not know; "
        f"give its backend chat_template_name=..., one of {', '.join(CHAT_TEMPLATES)}",
        stacklevel=2,
    )
    return by_path
