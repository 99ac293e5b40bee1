"""Every field of `sampling_params` is checked, and the error names it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_engine.errors import RequestError
from kernel_engine.sampling_params import SamplingParams

from .support import examples

STRING, OBJECT, ARRAY = "x", {}, []
WRONG_TYPES: dict[str, list[Any]] = {
    **{
        key: [STRING, 1.5, True, ARRAY, OBJECT]
        for key in ["max_new_tokens", "min_new_tokens", "n", "top_k", "stream_interval", "sampling_seed"]
    },
    **{
        key: [STRING, True, ARRAY, OBJECT, float("nan"), float("inf"), 10**400]
        for key in ["temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"]
    },
    **{key: [1, True, ARRAY, OBJECT] for key in ["regex", "json_schema", "ebnf", "structural_tag"]},
    **{
        key: [0, 1, STRING, ARRAY]
        for key in ["ignore_eos", "skip_special_tokens", "spaces_between_special_tokens", "no_stop_trim"]
    },
    **{key: [1, True, OBJECT, [1], ["a", None]] for key in ["stop", "stop_regex"]},
    "stop_token_ids": [1, STRING, ["a"], [1.5], [True]],
    "logit_bias": [1, STRING, ARRAY, {"a": 1}, {"-1": 1}, {"1": "x"}, {"²": 1}, {"1": float("nan")}],
}
OUT_OF_RANGE: dict[str, list[Any]] = {
    "temperature": [-0.1],
    "top_p": [0, 1.1, -1],
    "min_p": [-0.1, 1.1],
    "top_k": [0, -2],
    "frequency_penalty": [-2.1, 2.1],
    "presence_penalty": [-2.1, 2.1],
    "repetition_penalty": [0, 2.1, -1],
    "max_new_tokens": [-1],
    "min_new_tokens": [-1, 129],
    "n": [0, 129],
    "stream_interval": [0],
    "sampling_seed": [1 << 64],
    "stop_token_ids": [[-1], [1 << 40]],
    "stop": [["a"] * 33, "", ["a", ""]],
    "stop_regex": [["a"] * 33, "(", "a" * 257],
}
DEFAULTS = {name: getattr(SamplingParams(), name) for name in SamplingParams.__slots__}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(name, value, id=f"{name}={value!r:.20}") for name, values in table.items() for value in values]


def test_the_tables_are_complete():
    assert set(WRONG_TYPES) == set(DEFAULTS)


@pytest.mark.parametrize(("name", "value"), cases(WRONG_TYPES))
def test_a_wrong_type_is_refused(name: str, value: Any):
    with pytest.raises(RequestError, match=name) as refusal:
        SamplingParams.from_json({name: value})
    assert refusal.value.status == 400


@pytest.mark.parametrize(("name", "value"), cases(OUT_OF_RANGE))
def test_a_value_out_of_range_is_refused(name: str, value: Any):
    with pytest.raises(RequestError, match=name):
        SamplingParams.from_json({name: value})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"temperature": -1}, "temperature must be a non-negative finite number, got -1.0."),
        ({"top_p": 2}, "top_p must be in (0, 1], got 2.0."),
        ({"top_k": 0}, "top_k must be -1 (disable) or at least 1, got 0."),
        ({"min_new_tokens": 9, "max_new_tokens": 5}, "min_new_tokens must be in [0, max_new_tokens(5)], got 9."),
        ({"n": "3"}, "n must be an integer, got a string."),
        ({"regex": "a", "ebnf": "b"}, "Only one of regex, json_schema, ebnf, or structural_tag can be set."),
        ([], "sampling_params must be an object, got an array."),
    ],
)
def test_the_sentences(raw: Any, message: str):
    with pytest.raises(RequestError) as refusal:
        SamplingParams.from_json(raw)
    assert str(refusal.value) == message


def test_an_unknown_field_is_refused_by_name():
    with pytest.raises(
        RequestError, match=r"unknown field `max_tokens` in sampling_params, expected one of .*max_new_tokens"
    ):
        SamplingParams.from_json({"max_tokens": 5})


@pytest.mark.parametrize("name", sorted(set(DEFAULTS) - {"max_new_tokens"}))
def test_null_is_the_default(name: str):
    assert SamplingParams.from_json({name: None}) == SamplingParams()


def test_null_new_tokens_is_no_limit():
    assert SamplingParams.from_json({"max_new_tokens": None}).max_new_tokens is None


def test_whole_numbers_may_be_written_as_floats():
    assert SamplingParams.from_json({"max_new_tokens": 7.0}).max_new_tokens == 7


@pytest.mark.parametrize("temperature", [0, 1e-7])
def test_almost_no_temperature_is_greedy(temperature: float):
    assert SamplingParams.from_json({"temperature": temperature}).greedy


def test_an_empty_constraint_is_none():
    assert SamplingParams.from_json({"regex": "", "ebnf": "x"}).constraint == SamplingParams(ebnf="x").constraint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@examples(400)
@given(raw=st.dictionaries(st.sampled_from(sorted(DEFAULTS)), JSON, max_size=3) | JSON)
def test_no_value_gives_another_error(raw: Any):
    try:
        SamplingParams.from_json(raw)
    except RequestError as error:
        message = str(error)
    else:
        message = "it is fine"
    assert message
