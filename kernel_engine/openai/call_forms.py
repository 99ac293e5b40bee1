"""How models write tool calls: one row a form, from which calls are both read and, where they must be made, enforced.

Sources: the chat templates of Qwen2.5 and Hermes, Mistral and Llama 3.1; names as in SGLang's `--tool-call-parser`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import regex

from ..grammar import MAX_JSON_SPACES

Format = dict[str, Any]
"""A format of xgrammar's structural tags (https://xgrammar.mlc.ai/docs/structural_tag.html)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallForm:
    """Calls as `opening`, then `before` NAME `between` ARGUMENTS `after` for each, `separator` between two, `closing`.

    `begin` matches what stands before the object of a first call, anywhere in a text or only `at_start`; `end` what stands
    after that of a last one.
    """

    before: str
    between: str
    after: str = "}"
    separator: str
    opening: str = ""
    closing: str = ""
    trigger: str = '{"name": "'
    begin: regex.Pattern[str]
    end: regex.Pattern[str] = field(default_factory=lambda: regex.compile(""))
    at_start: bool = False
    id_length: int = 24

    def calls(self, tools: dict[str, Format], *, several: bool) -> Format:
        """Calls of `tools` (names and the schemas of their arguments), at least one, and nothing else."""
        calls = {
            "type": "tags_with_separator",
            "tags": self._tags(tools),
            "separator": self.separator,
            "at_least_one": True,
            "stop_after_first": not several,
        }
        return sequence([_const(self.opening), calls, _const(self.closing)])

    def strict(self, tools: dict[str, Format]) -> Format:
        """Any text, but calls in it only of `tools`."""
        return {"type": "triggered_tags", "triggers": [self.trigger], "tags": self._tags(tools)}

    def _tags(self, tools: dict[str, Format]) -> list[Format]:
        return [
            {
                "type": "tag",
                "begin": f"{self.before}{name}{self.between}",
                "content": json_format(schema),
                "end": self.after,
            }
            for name, schema in tools.items()
        ]


def json_format(schema: Any) -> Format:
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": MAX_JSON_SPACES}


def sequence(elements: Iterable[Format | None]) -> Format:
    """The formats one after the other, those that are None left out."""
    present = [element for element in elements if element]
    return present[0] if len(present) == 1 else {"type": "sequence", "elements": present}


def _const(text: str) -> Format | None:
    return {"type": "const_string", "value": text} if text else None


QWEN = CallForm(
    before='<tool_call>\n{"name": "',
    between='", "arguments": ',
    after="}\n</tool_call>",
    separator="\n",
    trigger="<tool_call>",
    begin=regex.compile(r"\s*<tool_call>"),
    end=regex.compile(r"\s*</tool_call>"),
)
MISTRAL = CallForm(
    opening="[TOOL_CALLS] [",
    before='{"name": "',
    between='", "arguments": ',
    separator=", ",
    closing="]",
    begin=regex.compile(r"\s*\[TOOL_CALLS\]\s*\["),
    end=regex.compile(r"\s*\]"),
    id_length=9,  # Mistral's templates take no other
)
LLAMA3 = CallForm(
    before='{"name": "',
    between='", "parameters": ',
    separator="; ",
    begin=regex.compile(r"\s*(?:<\|python_tag\|>\s*)?(?=\{)"),
    at_start=True,
)
JSON = CallForm(
    opening="[",
    before='{"name": "',
    between='", "parameters": ',
    separator=", ",
    closing="]",
    begin=regex.compile(r"\s*\[\s*(?=\{)"),
    end=regex.compile(r"\s*\]"),
    at_start=True,
)
"""For models whose own form is not known, or cannot be enforced: an array of objects."""
PYTHONIC: Literal["pythonic"] = "pythonic"
"""Llama 3.2's and 4's other form: `[name(argument=value), ...]`."""
Form = CallForm | Literal["pythonic"]
FORMS: dict[str, Form] = {
    "qwen25": QWEN, "qwen": QWEN, "hermes": QWEN, "mistral": MISTRAL, "llama3": LLAMA3, "pythonic": PYTHONIC,
}  # fmt: skip


def choose_form(name: str | None, template: str | None) -> Form | None:
    """What `--tool-call-parser` names, else what the template teaches; None if it teaches none of these."""
    if name is not None:
        return FORMS[name]
    source = template or ""
    if "<tool_call>" in source and "arguments" in source and "<function=" not in source and "<arg_key>" not in source:
        return QWEN
    if "[TOOL_CALLS]" in source and "[ARGS]" not in source:
        return MISTRAL
    return LLAMA3 if "<|python_tag|>" in source and '"parameters"' in source.replace("\\", "") else None
