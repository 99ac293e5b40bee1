"""What a JSON schema holds that the two compilers of constraints do not read alike, found or said so that both do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

OF_STRINGS = {"minLength", "maxLength", "pattern"}
OPEN = {"additionalProperties", "unevaluatedProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"}
"""Keywords beside `properties` that say, or may say, which others there can be."""
NAMED = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
NESTED = {
    "items", "prefixItems", "additionalItems", "unevaluatedItems", "contains", "additionalProperties", "unevaluatedProperties",
    "propertyNames", "anyOf", "oneOf", "allOf", "not", "if", "then", "else",
}  # fmt: skip


def bounds_strings(schema: Any) -> bool:
    """Whether it limits a string's length or says what it matches."""
    return any(not OF_STRINGS.isdisjoint(part) for part in _parts(schema))


def close_objects(schema: Any) -> None:
    """Say, in place, what xgrammar takes for said: an object has no other properties than those that are named."""
    for part in _parts(schema):
        if "properties" in part and OPEN.isdisjoint(part):
            part["additionalProperties"] = False


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and those in it; not what only looks like one, such as a constant."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword, value in [*schema.items()]:
        inner: Any = ()
        if keyword in NAMED and isinstance(value, dict):
            inner = value.values()
        elif keyword in NESTED:
            inner = value if isinstance(value, list) else [value]
        for each in inner:
            yield from _parts(each)
