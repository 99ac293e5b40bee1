"""Messages and tools of a chat body, checked, and brought into the shape that chat templates take."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError
from ..protocol import typed
from .call_forms import Format
from .fields import check_names
from .template import ChatTemplate

ROLES = {"system", "developer", "user", "assistant", "tool"}
KEPT = ("name", "tool_call_id", "reasoning_content")
"""Strings of a message that templates may use; its other fields beside role, content and calls are left out."""
TOOL_NAME = re.compile(r"[\w.:/-]{1,128}")
NO_ARGUMENTS: Format = {"type": "object", "properties": {}, "additionalProperties": False}


def read_prompt(body: dict[str, Any], tools: Tools, template: ChatTemplate, *, sees: bool = False) -> str:
    """The text that a body's messages and tools are to the model, which `sees` images or does not."""
    messages = read_messages(body.get("messages"), sees=sees)
    continues = typed("continue_final_message", body.get("continue_final_message"), bool, False)
    if continues and messages[-1]["role"] != "assistant":
        raise RequestError("continue_final_message needs a last message of the assistant's.", param="messages")
    variables = typed("chat_template_kwargs", body.get("chat_template_kwargs"), dict, {})
    if effort := typed("reasoning_effort", body.get("reasoning_effort"), str, ""):
        variables = {"reasoning_effort": effort} | variables
    return template.render(messages, tools.raw or None, variables, continue_final=continues)


def read_messages(value: Any, *, sees: bool = False) -> list[dict[str, Any]]:
    """The messages for a template: contents are strings, or parts where they show images; arguments of calls are objects, a
    developer is the system."""
    if not isinstance(value, list) or not value:
        raise RequestError("messages must be a non-empty array.", param="messages")
    return [_read_message(message, f"messages[{index}]", sees) for index, message in enumerate(value)]


def _read_message(message: Any, path: str, sees: bool) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RequestError(f"{path} must be an object.", param=path)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise RequestError(f"{path}.role must be one of {', '.join(sorted(ROLES))}.", param=f"{path}.role")
    found: dict[str, Any] = {
        "role": "system" if role == "developer" else role,
        "content": _content(message.get("content"), path, sees),
    }
    found |= {name: typed(f"{path}.{name}", message[name], str, "") for name in KEPT if message.get(name) is not None}
    if calls := typed(f"{path}.tool_calls", message.get("tool_calls"), list, []):
        found["tool_calls"] = [_call(call, f"{path}.tool_calls[{index}]") for index, call in enumerate(calls)]
    elif message.get("content") is None and role != "assistant":
        raise RequestError(f"{path}.content must be a string or an array of parts.", param=f"{path}.content")
    return found


def images_in(body: dict[str, Any]) -> list[str]:
    """The URLs of the images that a body's messages show, in their order. What is no message or part is left to its reader."""
    messages = body.get("messages")
    contents = [message.get("content") for message in _list(messages) if isinstance(message, dict)]
    parts = [part for content in contents for part in _list(content)]
    return [url for part in parts if (url := _image_url(part)) is not None]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _image_url(part: Any) -> str | None:
    """The URL of a part that is an image: `{"type": "image_url", "image_url": {"url": "..."}}`."""
    if not isinstance(part, dict) or part.get("type") != "image_url":
        return None
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    return url if isinstance(url, str) else None


def _content(content: Any, path: str, sees: bool) -> str | list[dict[str, str]]:
    """The text of a content, whose parts are joined by a space, as SGLang joins them; with images, parts for the template."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise RequestError(f"{path}.content must be a string or an array of parts.", param=f"{path}.content")
    parts = [_part(part, f"{path}.content[{index}]", sees) for index, part in enumerate(content)]
    if any(part["type"] == "image" for part in parts):
        return parts
    return " ".join(part["text"] for part in parts)


def _part(part: Any, path: str, sees: bool) -> dict[str, str]:
    """A part as chat templates take it: `{"type": "text", "text": "..."}` or `{"type": "image"}`."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "refusal") and isinstance(part.get(kind), str):
        return {"type": "text", "text": part[kind]}
    if kind == "image_url" and sees:
        if _image_url(part) is None:
            raise RequestError(f'{path} must be {{"type": "image_url", "image_url": {{"url": "..."}}}}.', param=path)
        return {"type": "image"}
    if isinstance(kind, str) and kind not in ("text", "refusal"):
        takes = "text and images" if sees else "text only"
        raise RequestError(f"{path} is of type {kind!r:.40}: this model takes {takes}.", param=path)
    raise RequestError(f'{path} must be {{"type": "text", "text": "..."}}.', param=path)


def _call(call: Any, path: str) -> dict[str, Any]:
    """A call of an earlier answer, its arguments as the object that templates expect."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RequestError(f"{path} must have a function with a name.", param=path)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise RequestError(f"{path}.function.arguments is not valid JSON.", param=path) from None
    identity = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return identity | {"type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools that an answer may call, and whether it must."""

    raw: list[dict[str, Any]]
    """As the template gets them; empty if none may be called."""
    schemas: dict[str, Format]
    """The tools that may be called, by name, with the schemas of their arguments."""
    forced: bool
    strict: bool
    """Whether a call of a tool's name must have arguments of its schema."""
    several: bool


def read_tools(body: dict[str, Any]) -> Tools:
    """`tools`, `tool_choice` and `parallel_tool_calls`."""
    raw = typed("tools", body.get("tools"), list, [])
    schemas: dict[str, Format] = {}
    strict = False
    for index, tool in enumerate(raw):
        name, schema, is_strict = _read_tool(tool, f"tools[{index}]")
        if name in schemas:
            raise RequestError(f"tools[{index}]: there is another tool of the name {name!r}.", param="tools")
        schemas[name], strict = schema, strict or is_strict
    several = typed("parallel_tool_calls", body.get("parallel_tool_calls"), bool, True)
    choice = body.get("tool_choice")
    if choice is None or choice == "auto":
        return Tools(raw, schemas, forced=False, strict=strict, several=several)
    if choice == "none":
        return Tools([], {}, forced=False, strict=False, several=several)
    named = _named(choice)
    if choice != "required" and named is None:
        message = 'tool_choice must be "none", "auto", "required" or {"type": "function", "function": {"name": "..."}}.'
        raise RequestError(message, param="tool_choice")
    if not schemas or (named is not None and named not in schemas):
        known = ", ".join(schemas) or "none"
        raise RequestError(f"tool_choice asks for a tool that is not there; tools: {known}.", param="tool_choice")
    if named is not None:
        return Tools(raw, {named: schemas[named]}, forced=True, strict=False, several=False)
    return Tools(raw, schemas, forced=True, strict=False, several=several)


def _named(choice: Any) -> str | None:
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _read_tool(tool: Any, path: str) -> tuple[str, Format, bool]:
    """Name, schema of the arguments, and whether it is strict."""
    if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
        raise RequestError(f'{path} must be {{"type": "function", "function": {{...}}}}.', param=path)
    function = tool["function"]
    path = f"{path}.function"
    check_names(function, {"name", "description", "parameters", "strict"}, within=path)
    name = typed(f"{path}.name", function.get("name"), str, "")
    if not TOOL_NAME.fullmatch(name):
        raise RequestError(f"{path}.name must be 1 to 128 letters, digits or any of . _ : / -", param=f"{path}.name")
    schema = typed(f"{path}.parameters", function.get("parameters"), dict, {}) or NO_ARGUMENTS
    return name, schema, typed(f"{path}.strict", function.get("strict"), bool, False)
