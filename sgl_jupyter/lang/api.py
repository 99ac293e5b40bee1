"""The words of the language: what a program writes down. Each returns an expression; nothing happens until it is appended."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from sgl_jupyter.lang.choices import ChoicesSamplingMethod, token_length_normalized
from sgl_jupyter.lang.ir import SglExpr, SglExprList, SglGen, SglRoleBegin, SglRoleEnd, SglSelect, as_expr, flatten
from sgl_jupyter.lang.sampling import overrides, typed


class GenSettings(TypedDict, total=False):
    """The settings of `gen` that `gen_int` and `gen_string` share."""

    min_tokens: int | None
    n: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: int | Sequence[int] | None
    stop_regex: str | Sequence[str] | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    ignore_eos: bool | None
    logit_bias: Mapping[int | str, float] | None
    seed: int | None
    return_logprob: bool | None
    logprob_start_len: int | None
    top_logprobs_num: int | None
    return_text_in_logprobs: bool | None


def gen(
    name: str | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    n: int | None = None,
    stop: str | Sequence[str] | None = None,
    stop_token_ids: int | Sequence[int] | None = None,
    stop_regex: str | Sequence[str] | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    ignore_eos: bool | None = None,
    return_logprob: bool | None = None,
    logprob_start_len: int | None = None,
    top_logprobs_num: int | None = None,
    return_text_in_logprobs: bool | None = None,
    dtype: type | str | None = None,
    choices: Sequence[str] | None = None,
    choices_method: ChoicesSamplingMethod | None = None,
    regex: str | None = None,
    json_schema: str | Mapping[str, Any] | None = None,
    *,
    ebnf: str | None = None,
    repetition_penalty: float | None = None,
    logit_bias: Mapping[int | str, float] | None = None,
    seed: int | None = None,
) -> SglExpr:
    """Let the model continue the text; the continuation is the variable `name`.

    What is None is as the program's `run` says, and else SGLang's default: 128 new tokens at temperature 1.0. The chat template's
    stop strings are added to `stop`. With `n` above 1 the variable is a list of `n` texts, and the text goes on with the first.

    Args:
        max_tokens: at most so many new tokens; min_tokens: at least so many.
        stop: the text ends before any of these strings.
        temperature: 0 takes the likeliest token each time; `seed` makes sampling repeatable.
        dtype: int, float, bool or str: the text is a literal of that type. It is still text: `int(s[name])`.
        choices: one of these texts is taken, as by `select`, and nothing is sampled.
        regex, json_schema, ebnf: the text obeys this regular expression, JSON schema (a string or a dict) or grammar.
        return_logprob: the tokens' log-probabilities come with `get_meta_info(name)`.

    Raises:
        TypeError, ValueError, re.error: an argument makes no sense; the message names it.
    """
    given = {
        "max_new_tokens": max_tokens,
        "min_new_tokens": min_tokens,
        "n": n,
        "stop": stop,
        "stop_token_ids": stop_token_ids,
        "stop_regex": stop_regex,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "repetition_penalty": repetition_penalty,
        "ignore_eos": ignore_eos,
        "logit_bias": logit_bias,
        "seed": seed,
        "return_logprob": return_logprob,
        "logprob_start_len": logprob_start_len,
        "top_logprobs_num": top_logprobs_num,
        "return_text_in_logprobs": return_text_in_logprobs,
        "regex": regex,
        "json_schema": json_schema,
        "ebnf": ebnf,
    }
    if choices is not None:
        given |= {"dtype": dtype}
        idle = [key for key, value in given.items() if value is not None and key != "temperature"]
        if idle:
            warnings.warn(f"gen(choices=...) samples nothing, so it ignores {', '.join(idle)}", stacklevel=2)
        return select(name, choices, temperature or 0.0, choices_method or token_length_normalized)
    if choices_method is not None:
        raise ValueError("choices_method needs choices")
    if dtype is None:
        return SglGen(name, overrides(given))
    return SglGen(name, *typed(dtype, given))


def gen_int(name: str | None = None, max_tokens: int | None = None, **settings: Unpack[GenSettings]) -> SglExpr:
    """`gen(name, dtype=int)`: the text is an integer."""
    return gen(name, max_tokens, dtype=int, **settings)


def gen_string(name: str | None = None, max_tokens: int | None = None, **settings: Unpack[GenSettings]) -> SglExpr:
    """`gen(name, dtype=str)`: the text is a string in double quotes."""
    return gen(name, max_tokens, dtype=str, **settings)


def select(
    name: str | None = None,
    choices: Sequence[str] | None = None,
    temperature: float = 0.0,
    choices_method: ChoicesSamplingMethod = token_length_normalized,
) -> SglExpr:
    """Append the most likely of `choices`, which becomes the variable `name`.

    The scores are in `get_meta_info(name)`, by the method's own keys.

    Raises:
        TypeError: `choices` is no sequence of strings.
        ValueError: there are no choices, one is empty, or `temperature` is not 0.
    """
    if isinstance(choices, str) or not isinstance(choices, Sequence) or not all(isinstance(c, str) for c in choices):
        raise TypeError(f"choices must be a list of strings, not {choices!r}")
    if not choices or "" in choices:
        raise ValueError(f"choices must hold at least one text, and no empty one, not {choices!r}")
    if temperature > 1e-5:
        raise ValueError(
            f"temperature must be 0 where choices are given, not {temperature}: they are compared, not sampled"
        )
    return SglSelect(name, tuple(choices), choices_method)


def image(path: Any) -> SglExpr:
    """An image in the prompt. Not there yet."""
    raise NotImplementedError("images in prompts are not supported yet")


def system_begin() -> SglExpr:
    """Open a system message, to be closed by `system_end()`."""
    return SglRoleBegin("system")


def system_end() -> SglExpr:
    return SglRoleEnd("system")


def user_begin() -> SglExpr:
    """Open a user message, to be closed by `user_end()`."""
    return SglRoleBegin("user")


def user_end() -> SglExpr:
    return SglRoleEnd("user")


def assistant_begin() -> SglExpr:
    """Open an assistant message, to be closed by `assistant_end()`."""
    return SglRoleBegin("assistant")


def assistant_end() -> SglExpr:
    return SglRoleEnd("assistant")


def system(expr: SglExpr | str | None = None) -> SglExpr:
    """A whole system message."""
    return message("system", expr)


def user(expr: SglExpr | str | None = None) -> SglExpr:
    """A whole user message."""
    return message("user", expr)


def assistant(expr: SglExpr | str | None = None) -> SglExpr:
    """A whole assistant message."""
    return message("assistant", expr)


def message(role: str, expr: SglExpr | str | None) -> SglExpr:
    """A whole message of `role`."""
    content = () if expr is None else flatten(as_expr(expr))
    return SglExprList((SglRoleBegin(role), *content, SglRoleEnd(role)))
