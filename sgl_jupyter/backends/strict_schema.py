"""JSON schemas as OpenAI's and Anthropic's services take them: of each object they want every property, and no others."""

from __future__ import annotations

from typing import Any

NAMED = ("properties", "$defs", "definitions")
LISTED = ("anyOf", "allOf", "oneOf", "prefixItems")


def strict_schema(schema: Any) -> Any:
    """A schema that allows less: whatever obeys it obeys `schema` too.

    All properties of an object are required, and no others are allowed. Defaults, which say nothing of what is valid, are left
    out. (OpenAI: "Structured outputs", supported schemas.)
    """
    if not isinstance(schema, dict):
        return schema  # True or False: anything or nothing
    result = {key: value for key, value in schema.items() if key != "default"}
    for key in NAMED:
        if key in result:
            result[key] = {name: strict_schema(part) for name, part in result[key].items()}
    for key in LISTED:
        if key in result:
            result[key] = [strict_schema(part) for part in result[key]]
    if "items" in result:
        result["items"] = strict_schema(result["items"])
    if "properties" in result and isinstance(result.get("additionalProperties", True), bool):
        result |= {"additionalProperties": False, "required": list(result["properties"])}
    return result
