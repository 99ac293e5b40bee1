"""What an answer must look like, put together from `response_format`, tools and reasoning into one constraint."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ..errors import RequestError
from ..sampling_params import Constraint, SamplingParams
from .call_forms import JSON, CallForm, Form, Format, json_format, sequence
from .fields import check_names
from .messages import Tools
from .reasoning import CLOSE, OPEN, Stage

SPACE: Format = {"type": "regex", "pattern": r"[ \n]{0,4}"}
"""Between thoughts and what is said."""


def read_response_format(value: Any) -> dict[str, str]:
    """The field of `SamplingParams` that a `response_format` stands for; none for plain text."""
    if value is None:
        return {}
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"json_schema": '{"type": "object"}'}
    if kind == "structural_tag":
        return {"structural_tag": json.dumps(value)}
    if kind != "json_schema":
        raise RequestError(
            "response_format.type must be text, json_object, json_schema or structural_tag.", param="response_format"
        )
    wanted = value.get("json_schema")
    if not isinstance(wanted, dict) or not isinstance(wanted.get("schema"), dict):
        raise RequestError(
            "response_format.json_schema must be an object that holds a schema.", param="response_format"
        )
    check_names(wanted, {"name", "schema", "strict", "description"}, within="response_format.json_schema")
    return {"json_schema": json.dumps(wanted["schema"], ensure_ascii=False)}


def enforced_form(form: Form | None, tools: Tools) -> Form | None:
    """The form that calls are read in: the model's own, if forced calls can have it, else an array of JSON objects."""
    return JSON if tools.forced and not isinstance(form, CallForm) else form


def constrain(params: SamplingParams, tools: Tools, form: Form | None, stage: Stage) -> SamplingParams:
    """`params` with everything that the answer must be. `stage` is where it begins; thoughts are always free."""
    own = params.constraint
    calls = _calls(tools, form, own)
    if own and tools.forced:
        raise RequestError(f"tool_choice and {own.kind} cannot both say what the answer is.", param="tool_choice")
    if calls is None and (own is None or stage == "says"):
        return params
    said: Format | None = calls
    if own:
        said = {"type": "or", "elements": [calls, _format(own)]} if calls else _format(own)
    tag = {"type": "structural_tag", "format": sequence([*_thoughts(stage), said])}
    free = replace(params, regex=None, ebnf=None, json_schema=None)
    return replace(free, structural_tag=json.dumps(tag, ensure_ascii=False))


def _calls(tools: Tools, form: Form | None, own: Constraint | None) -> Format | None:
    """Calls that must be made, or may be instead of the constrained text; of strict tools, any text whose calls are right."""
    if not isinstance(form, CallForm) or not tools.schemas:
        return None
    if tools.forced or own:
        return form.calls(tools.schemas, several=tools.several)
    return form.strict(tools.schemas) if tools.strict else None


def _thoughts(stage: Stage) -> list[Format]:
    if stage == "says":
        return []
    begin = OPEN if stage == "begins" else ""
    tag: Format = {"type": "tag", "begin": begin, "content": {"type": "any_text"}, "end": CLOSE}
    thoughts = sequence([tag, SPACE])
    return [{"type": "optional", "content": thoughts} if stage == "begins" else thoughts]


def _format(constraint: Constraint) -> Format:
    """A constraint as a part of a structural tag."""
    try:
        if constraint.kind == "json_schema":
            return json_format(json.loads(constraint.text))
        if constraint.kind == "structural_tag":
            return json.loads(constraint.text)["format"]
    except (ValueError, KeyError, RecursionError):
        raise RequestError(f"{constraint.kind} cannot be read.", param=constraint.kind) from None
    if constraint.kind == "regex":
        return {"type": "regex", "pattern": constraint.text}
    return {"type": "grammar", "grammar": constraint.text}
