"""The words of the language: what they make, and which mistakes they name at once."""

from __future__ import annotations

import re

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import SamplingParams
from sgl_jupyter.lang.ir import SglConstantText, SglExpr, SglExprList, SglGen, flatten
from sgl_jupyter.lang.program import begin_state

from .fake_backend import FakeBackend


def params_of(expr: SglExpr, template: str = "chatml", **defaults) -> SamplingParams:
    """The parameters of the request that `expr` makes."""
    backend = FakeBackend(template=template)
    state = begin_state(backend, **defaults)
    state += expr
    state.sync()
    return backend.requests[0][1]


def test_plus_makes_one_flat_list_of_expressions_and_strings() -> None:
    joined = "a" + sgl.gen("x") + "b" + sgl.user("q") + sgl.gen("y")
    assert repr(joined) == (
        "ExprList([Constant('a'), Gen('x'), Constant('b'), RoleBegin(user), Constant('q'), RoleEnd(user), Gen('y')])"
    )
    assert not any(isinstance(part, SglExprList) for part in flatten(joined))


@pytest.mark.parametrize("wrong", [5, b"bytes", ["a"]])
def test_plus_with_what_is_no_text_is_a_type_error(wrong: object) -> None:
    with pytest.raises(TypeError, match="text or an expression is needed"):
        sgl.gen("x") + wrong  # pyright: ignore[reportOperatorIssue]


def test_an_expression_in_an_f_string_is_an_error_and_not_silently_its_repr() -> None:
    with pytest.raises(TypeError, match="join with \\+"):
        f"The answer is {sgl.gen('answer')}"


def test_gen_overrides_what_run_says_and_leaves_the_rest() -> None:
    params = params_of(sgl.gen("x", max_tokens=7, temperature=0.0), temperature=0.5, top_p=0.9)
    assert (params.max_new_tokens, params.temperature, params.top_p) == (7, 0.0, 0.9)


def test_a_gen_without_settings_has_the_defaults_of_sglang() -> None:
    assert params_of(sgl.gen("x"), template="default") == SamplingParams()


def test_every_parameter_of_gen_reaches_the_request() -> None:
    given = {
        "n": 2, "stop_token_ids": (1, 2), "stop_regex": ("a+",), "temperature": 0.5, "top_p": 0.6, "top_k": 7, "min_p": 0.1,
        "frequency_penalty": 0.2, "presence_penalty": 0.3, "repetition_penalty": 1.1, "ignore_eos": True,
        "seed": 3, "return_logprob": True, "logprob_start_len": 4, "top_logprobs_num": 5, "return_text_in_logprobs": True,
        "regex": "[ab]", "lora_path": "pirate",
    }  # fmt: skip
    expr = sgl.gen("x", max_tokens=8, min_tokens=9, logit_bias={5: 1}, **given)
    expected = SamplingParams(max_new_tokens=8, min_new_tokens=9, logit_bias={"5": 1.0}, **given)
    assert params_of(expr, template="default") == expected


def test_ub6_a_list_of_stop_strings_is_not_changed_by_its_use() -> None:
    stops = ["a"]
    for _ in range(3):
        assert params_of(sgl.gen("x", stop=stops)).stop == ("a", "<|im_end|>")
    assert stops == ["a"]


@pytest.mark.parametrize("template", ["default", "chatml"])
def test_ub7_a_dtype_goes_with_a_stop_string_on_any_template(template: str) -> None:
    params = params_of(sgl.gen_int("x", stop="."), template=template)
    assert {".", " ", "\n"} <= set(params.stop)
    assert params.regex is not None
    assert re.fullmatch(params.regex, "-12")


@pytest.mark.parametrize(
    ("dtype", "literal", "other"),
    [(int, "42", "4.2"), ("float", "4.25", "True"), (bool, "False", "false"), (str, '"a b"', "a b")],
)
def test_dtype_constrains_to_literals_of_that_type(dtype: type | str, literal: str, other: str) -> None:
    regex = params_of(sgl.gen("x", dtype=dtype)).regex
    assert regex is not None
    assert re.fullmatch(regex, literal)
    assert not re.fullmatch(regex, other)


def test_gen_string_is_gen_with_dtype_str() -> None:
    assert params_of(sgl.gen_string("x", 5)) == params_of(sgl.gen("x", 5, dtype=str))


def test_a_json_schema_can_be_a_dict() -> None:
    assert params_of(sgl.gen("x", json_schema={"type": "object"})).json_schema == '{"type": "object"}'


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regex": "a", "json_schema": "{}"}, "only one of regex, json_schema"),
        ({"regex": "a", "ebnf": "root ::= a"}, "only one of regex, ebnf"),
        ({"regex": "a", "dtype": int}, "together with regex"),
        ({"dtype": "complex"}, "dtype must be int, float, bool or str"),
        ({"choices_method": sgl.greedy_token_selection}, "choices_method needs choices"),
    ],
)
def test_contradictory_settings_are_value_errors(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sgl.gen("x", **settings)


@pytest.mark.parametrize(("field", "value"), [("stop", 3), ("stop", ["a", 3]), ("stop_token_ids", "a")])
def test_a_setting_of_a_wrong_type_is_named(field: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{field} must be"):
        sgl.gen("x", **{field: value})  # pyright: ignore[reportArgumentType]


def test_a_regex_that_is_none_is_told_where_it_is_written() -> None:
    with pytest.raises(re.error):
        sgl.gen("x", regex="(")


@pytest.mark.parametrize("choices", [[], ["a", ""]])
def test_ub5_no_choices_or_an_empty_one_is_a_value_error(choices: list[str]) -> None:
    with pytest.raises(ValueError, match="choices must hold at least one text"):
        sgl.gen("x", choices=choices)


@pytest.mark.parametrize("choices", ["abc", [1, 2], None])
def test_choices_that_are_no_list_of_strings_are_a_type_error(choices: object) -> None:
    with pytest.raises(TypeError, match="choices must be a list of strings"):
        sgl.select("x", choices)  # pyright: ignore[reportArgumentType]


def test_ub5_settings_that_choices_ignore_are_warned_of() -> None:
    with pytest.warns(UserWarning, match="ignores max_new_tokens, regex"):
        sgl.gen("x", choices=["a"], max_tokens=3, regex="a")


def test_choices_are_not_sampled() -> None:
    with pytest.raises(ValueError, match="temperature must be 0"):
        sgl.gen("x", choices=["a"], temperature=0.5)


def test_whole_messages_and_their_halves_are_the_same() -> None:
    for role in ("system", "user", "assistant"):
        whole = getattr(sgl, role)("text")
        halves = getattr(sgl, f"{role}_begin")() + "text" + getattr(sgl, f"{role}_end")()
        assert repr(whole) == repr(halves)


def test_reprs_are_those_of_sglang() -> None:
    assert repr(SglConstantText("a")) == "Constant('a')"
    assert repr(SglGen("x")) == "Gen('x')"
    assert repr(sgl.user_begin()) == "RoleBegin(user)"
    assert repr(sgl.user_end()) == "RoleEnd(user)"
    assert repr(sgl.select("x", ["a", "b"])) == "Select(x, choices=['a', 'b'], choices_method=TokenLengthNormalized)"
