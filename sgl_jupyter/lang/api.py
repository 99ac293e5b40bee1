"""The words of the language: what a program writes down. Each returns an expression; nothing happens until it is appended."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack

from sgl_jupyter.lang.choices import ChoicesSamplingMethod, token_length_normalized
from sgl_jupyter.lang.ir import (
    SglExpr,
    SglExprList,
    SglGen,
    SglImage,
    SglRoleBegin,
    SglRoleEnd,
    SglSelect,
    SglVideo,
    Unknown,
    as_expr,
    flatten,
)
from sgl_jupyter.lang.media import as_image, as_video
from sgl_jupyter.lang.reasoning import reasoning_format
from sgl_jupyter.lang.sampling import overrides, typed
from sgl_jupyter.lang.schema import parser


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
    lora_path: str | None


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
    json_schema: str | Mapping[str, Any] | type | None = None,
    *,
    ebnf: str | None = None,
    repetition_penalty: float | None = None,
    logit_bias: Mapping[int | str, float] | None = None,
    seed: int | None = None,
    lora_path: str | None = None,
) -> SglExpr:
    """Let the model continue the text; the continuation is the variable `name`.

    What is None is as the program's `run` says, and else SGLang's default: 128 new tokens at temperature 1.0. The chat template's
    stop strings are added to `stop`. With `n` above 1 the variable is a list of `n` texts, and the text goes on with the first.

    Args:
        max_tokens: at most so many new tokens; min_tokens: at least so many.
        stop: the text ends before any of these strings.
        temperature: 0 takes the likeliest token each time; `seed` makes sampling repeatable.
        dtype: int, float, bool or str: the text is a literal of that type. `s[name]` is its text, `s.get_parsed(name)` its value.
        choices: one of these texts is taken, as by `select`, and nothing is sampled.
        regex, ebnf: the text obeys this regular expression or grammar.
        json_schema: the text obeys this JSON schema: a text or dict, or a pydantic model, dataclass or TypedDict.
            `s.get_parsed(name)` is the object, of that type where one is given.
        return_logprob: the tokens' log-probabilities come with `get_meta_info(name)`.
        lora_path: the adapter to generate with, by the name the engine knows it by.

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
        "lora_path": lora_path,
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
        return SglGen(name, overrides(given), parse=None if json_schema is None else parser(json_schema))
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
    """An image in the prompt: a path, a URL, the bytes of a file, a PIL image, or an array of pixels.

    It is read at once. Raises FileNotFoundError, ValueError or TypeError where it is no image, or larger than 64 MiB. A URL is
    not fetched here: the server does that.
    """
    return SglImage(_named(path), None if isinstance(path, Unknown) else as_image(path))


def video(path: Any, num_frames: int) -> SglExpr:
    """A video in the prompt, by `num_frames` evenly spaced frames: a path, or a sequence of images.

    Raises what `image` raises; ImportError where OpenCV is needed to read the file and is not installed.
    """
    return SglVideo(_named(path), num_frames, None if isinstance(path, Unknown) else as_video(path, num_frames))


def _named(source: Any) -> str:
    """What an image is called in messages: its path or URL, but not the data of a `data:` URL."""
    if isinstance(source, str):
        return source.partition(",")[0]
    return repr(source) if isinstance(source, Unknown) else type(source).__name__


def separate_reasoning(expr: SglExpr, model_type: str | None = None) -> SglExpr:
    """Keep the reasoning of the generations in `expr` out of the text, and so out of what comes after.

    The variable of `gen("x")` then holds the answer, and `x_reasoning_content` what was thought before.

    Args:
        model_type: SGLang's name of the way that the model marks its reasoning, such as "deepseek-r1" or "qwen3".

    Raises:
        ValueError: `model_type` is missing or unknown, or a generation has no name.
        TypeError: `expr` generates nothing.
    """
    reasoning_format(model_type)
    nodes = list(flatten(as_expr(expr)))
    gens = [node for node in nodes if isinstance(node, SglGen)]
    if not gens:
        raise TypeError(f"separate_reasoning needs a gen, not {expr!r}")
    if any(gen.name is None for gen in gens):
        raise ValueError("name must be provided: a gen whose reasoning is kept needs one")
    return SglExprList(
        tuple(dataclasses.replace(node, reasoning=model_type) if isinstance(node, SglGen) else node for node in nodes)
    )


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
