"""From the arguments of `gen` and `run` to the `SamplingParams` of one request.

`overrides` checks and normalizes what the user gave; `resolve` joins it with the program's defaults and the chat template's
stop strings. Nothing that the user handed over is ever changed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sgl_jupyter.backends.base import SamplingParams
from sgl_jupyter.lang.hint import did_you_mean
from sgl_jupyter.lang.ir import REGEX_BOOL, REGEX_FLOAT, REGEX_INT, REGEX_STR, SglGen
from sgl_jupyter.lang.schema import schema_text

FIELDS = tuple(f.name for f in dataclasses.fields(SamplingParams))
CONSTRAINTS = ("regex", "json_schema", "ebnf")
TUPLES: Mapping[str, type] = {"stop": str, "stop_regex": str, "stop_token_ids": int}

RUN_SETTINGS = frozenset(FIELDS) - frozenset(CONSTRAINTS)
"""The defaults for all generations of a program that `run` takes."""

_NUMBER_ENDS = (" ", "\n")
_DTYPES: Mapping[Any, tuple[str, tuple[str, ...], Callable[[str], Any]]] = {
    int: (REGEX_INT, _NUMBER_ENDS, int),
    float: (REGEX_FLOAT, _NUMBER_ENDS, float),
    bool: (REGEX_BOOL, (), "True".__eq__),
    str: (REGEX_STR, (), lambda text: text[1:-1]),
}
_DTYPE_NAMES = {dtype.__name__: dtype for dtype in _DTYPES}


def overrides(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `SamplingParams` that were given, that is, are not None, in their proper types.

    Raises:
        TypeError: an unknown field, or a value of a wrong type.
        ValueError: more than one constraint.
        re.error: `regex` is no regular expression.
    """
    result = {name: _normalized(name, value) for name, value in given.items() if value is not None}
    constraints = [name for name in CONSTRAINTS if name in result]
    if len(constraints) > 1:
        raise ValueError(f"only one of {', '.join(constraints)} can be given")
    return result


def typed(dtype: type | str, given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...], Callable[[str], Any]]:
    """The overrides that make a generation yield a literal of `dtype`, the strings that end it, and what reads it."""
    key = _DTYPE_NAMES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if key not in _DTYPES:
        raise ValueError(f"dtype must be int, float, bool or str, not {dtype!r}")
    if clash := [name for name in CONSTRAINTS if given.get(name) is not None]:
        raise ValueError(f"dtype is a constraint of its own: it cannot be given together with {clash[0]}")
    regex, ends, read = _DTYPES[key]
    return overrides({**given, "regex": regex}), ends, read


def resolve(defaults: SamplingParams, gen: SglGen, template_stop: Sequence[str]) -> SamplingParams:
    """What one generation asks for: its own settings before the program's, and every stop string that applies."""
    params = dataclasses.replace(defaults, **gen.overrides)
    return dataclasses.replace(params, stop=(*params.stop, *template_stop, *gen.extra_stop))


def _normalized(name: str, value: Any) -> Any:
    if name not in FIELDS:
        raise TypeError(f"unknown sampling parameter {name!r}{did_you_mean(name, FIELDS)}")
    if name in TUPLES:
        return _tuple(name, value, TUPLES[name])
    if name == "regex":
        re.compile(value)
    if name == "json_schema":
        return schema_text(value)
    if name == "logit_bias":
        return {str(token): float(bias) for token, bias in value.items()}
    return value


def _tuple(name: str, value: Any, element: type) -> tuple[Any, ...]:
    """One value or several, as a tuple."""
    values = (value,) if isinstance(value, element) else tuple(value) if isinstance(value, list | tuple) else None
    if values is None or not all(isinstance(v, element) for v in values):
        raise TypeError(f"{name} must be one {element.__name__} or a list of them, not {value!r}")
    return values
