"""JSON schemas of Python types, and the objects that a schema's text stands for.

Dataclasses, TypedDicts, enums, literals, unions and the built-in containers are read here; pydantic models read themselves.
Every named type is written once, under `$defs`, so that types may refer to themselves.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

_SIMPLE: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    None: {"type": "null"},
    Any: {},
}


def schema_text(schema: Any) -> str:
    """A JSON schema as text: of a text or a mapping, which is one already, or of a type.

    Raises:
        TypeError: no schema can be made of it.
        ValueError: the text is no JSON object.
    """
    if isinstance(schema, str):
        try:
            is_object = isinstance(json.loads(schema), dict)
        except ValueError as error:
            raise ValueError(f"json_schema is not JSON: {error}") from None
        if not is_object:
            raise ValueError("json_schema must be a JSON object")
        return schema
    if isinstance(schema, Mapping):
        return json.dumps(schema)
    defs: dict[str, Any] = {}
    whole = _schema(schema, defs)
    return json.dumps({**whole, "$defs": defs} if defs else whole)


def parser(schema: Any) -> Callable[[str], Any]:
    """What makes an object of a text that obeys the schema: one of the type, or plain lists and dicts."""
    if isinstance(schema, str | Mapping):
        return json.loads
    return lambda text: _read(schema, json.loads(text))


def _schema(kind: Any, defs: dict[str, Any]) -> dict[str, Any]:
    origin, args = get_origin(kind), get_args(kind)
    if hasattr(kind, "__supertype__"):
        return _schema(kind.__supertype__, defs)
    if origin is typing.Annotated or origin in (typing.Required, typing.NotRequired):
        return _schema(args[0], defs)
    if isinstance(kind, type) and (issubclass(kind, enum.Enum) or _fields(kind) is not None or _is_model(kind)):
        return _named(kind, defs)
    if kind in _SIMPLE:
        return dict(_SIMPLE[kind])
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(arg, defs) for arg in args]}
    if kind is list or origin is list:
        return {"type": "array"} | ({"items": _schema(args[0], defs)} if args else {})
    if origin is tuple and Ellipsis not in args:
        items = [_schema(arg, defs) for arg in args]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items), "maxItems": len(items)}
    if kind is dict or (origin is dict and args[0] is str):
        return {"type": "object"} | ({"additionalProperties": _schema(args[1], defs)} if args else {})
    raise TypeError(
        f"json_schema cannot be made of {kind!r}: give a schema, a pydantic model, a dataclass, a TypedDict or types of these"
    )


def _named(kind: type, defs: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in defs:
        defs[name] = {}  # so that a type which refers to itself comes to an end
        if issubclass(kind, enum.Enum):
            defs[name] = {"enum": [member.value for member in kind]}
        elif _is_model(kind):
            own = kind.model_json_schema()  # pyright: ignore[reportAttributeAccessIssue]
            defs |= own.pop("$defs", {})
            if "$ref" not in own:  # a model that refers to itself is among its own definitions
                defs[name] = own
        else:
            fields, required = _fields(kind) or ({}, [])
            properties = {field: _schema(hint, defs) for field, hint in fields.items()}
            defs[name] = {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            }
    return {"$ref": f"#/$defs/{name}"}


def _is_model(kind: Any) -> bool:
    return hasattr(kind, "model_json_schema") and hasattr(kind, "model_validate")


def _fields(kind: type) -> tuple[dict[str, Any], list[str]] | None:
    """The fields of a dataclass or TypedDict by their types, and which of them must be there. None for other types."""
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        marks = {name: get_origin(hint) for name, hint in hints.items()}  # `__required_keys__` misses those in quotes
        always = kind.__required_keys__ | {name for name, mark in marks.items() if mark is typing.Required}
        return hints, [name for name in hints if name in always and marks[name] is not typing.NotRequired]
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = [field for field in dataclasses.fields(kind) if field.init]
        missing = dataclasses.MISSING
        required = [f.name for f in fields if f.default is missing and f.default_factory is missing]
        return {field.name: hints[field.name] for field in fields}, required
    return None


def _read(kind: Any, value: Any) -> Any:
    """`value`, of plain lists and dicts, as an object of the type. Raises TypeError or ValueError where it is none."""
    origin, args = get_origin(kind), get_args(kind)
    if hasattr(kind, "__supertype__"):
        return _read(kind.__supertype__, value)
    if origin is typing.Annotated or origin in (typing.Required, typing.NotRequired):
        return _read(args[0], value)
    if _is_model(kind):
        return kind.model_validate(value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if isinstance(kind, type) and (described := _fields(kind)) is not None:
        return kind(**{name: _read(described[0][name], part) for name, part in _checked(dict, value).items()})
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{value!r} is not one of {args}")
        return value
    if origin in (Union, types.UnionType):
        return _read_union(args, value)
    if origin is list:
        return [_read(args[0], part) for part in _checked(list, value)]
    if origin is tuple:
        return tuple(_read(arg, part) for arg, part in zip(args, _checked(list, value), strict=True))
    if origin is dict:
        return {name: _read(args[1], part) for name, part in _checked(dict, value).items()}
    if kind is float and type(value) is int:
        return float(value)
    return value if kind is Any else _checked(type(None) if kind is None else kind, value)


def _read_union(kinds: tuple[Any, ...], value: Any) -> Any:
    for kind in kinds:
        try:
            return _read(kind, value)
        except (TypeError, ValueError, KeyError):
            continue
    raise ValueError(f"{value!r} is none of {kinds}")


def _checked(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
