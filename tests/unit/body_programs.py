"""Programs that between them use every feature of the language, written once for this package and for SGLang's own."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from .fake_server import sse

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
SCHEMA = '{"type": "object", "properties": {"name": {"type": "string"}}}'


def all_settings() -> dict[str, Any]:
    """A new list each time: SGLang's client adds to the one that it is given."""
    return {
        "max_tokens": 7, "min_tokens": 2, "stop": ["\n", "END"], "stop_token_ids": [5, 6], "temperature": 0.5, "top_p": 0.9,
        "top_k": 40, "min_p": 0.1, "frequency_penalty": 0.25, "presence_penalty": -0.5, "ignore_eos": True,
        "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 2, "return_text_in_logprobs": True,
    }  # fmt: skip


def answer(body: dict[str, Any]) -> Response:
    """What the recording server says: every generation is "7", every prompt has five tokens, every choice one."""

    def one(*ids: int) -> dict[str, Any]:
        logprobs = [[-0.1 if place else None, token_id, "x"] for place, token_id in enumerate(ids)]
        counts = {"prompt_tokens": 5, "completion_tokens": 1, "finish_reason": {"type": "stop"}}
        return {"text": "7", "meta_info": {**counts, "input_token_logprobs": logprobs, "output_token_logprobs": []}}

    if body.get("stream"):
        return sse(one())
    if "input_ids" in body:
        return JSONResponse([one(*ids) for ids in body["input_ids"]])
    if isinstance(texts := body["text"], list):  # a text with which all others begin is the prompt alone
        return JSONResponse([one(1) if all(t.startswith(text) for t in texts) else one(1, 2) for text in texts])
    return JSONResponse([one()] * n if (n := body["sampling_params"].get("n", 1)) > 1 else one())


Run = Callable[[Any], Sequence[Any]]
"""Runs a program on a backend to its end, and gives its states."""


def programs(sgl: Any) -> dict[str, Run]:
    """The programs by their names; `sgl` is the package whose words they use."""

    def one(body: Callable[..., Any], **settings: Any) -> Run:
        def run(backend: Any) -> Sequence[Any]:
            state = sgl.function(body).run(backend=backend, **settings)
            state.sync()
            return [state]

        return run

    def plain(s: Any) -> None:
        s += "The capital of France is" + sgl.gen("x")

    def settings(s: Any) -> None:
        s += "Say: " + sgl.gen("x", **all_settings())

    def chat(s: Any) -> None:
        s += sgl.system("Be brief.")
        s += sgl.user("Name a color.")
        s += sgl.assistant(sgl.gen("first", max_tokens=16, stop="."))
        s += sgl.user("Another one.")
        s += sgl.assistant(sgl.gen("second", stop=["\n", "."]))

    def default_system(s: Any) -> None:
        s += sgl.user_begin() + "Hello" + sgl.user_end() + sgl.assistant_begin() + sgl.gen("x") + sgl.assistant_end()

    def bound_roles(s: Any) -> None:
        s.system("Be brief.")
        with s.user():
            s += "Hello"
        with s.assistant():
            s += "Well: " + sgl.gen("x")

    def dtypes(s: Any) -> None:
        s += "int: " + sgl.gen("i", dtype=int) + sgl.gen_int("j", stop="x")
        s += "float: " + sgl.gen("f", dtype="float") + "bool: " + sgl.gen("b", dtype=bool)
        s += "str: " + sgl.gen("t", dtype=str) + sgl.gen_string("u")

    def regex(s: Any) -> None:
        s += sgl.user("IP?") + sgl.assistant(sgl.gen("x", temperature=0, regex=r"\d+(\.\d+){3}"))

    def schema(s: Any) -> None:
        s += "JSON: " + sgl.gen("x", json_schema=SCHEMA)

    def select(s: Any) -> None:
        s += "I need a " + sgl.gen("tool", choices=["calculator", "search engine"]) + ". "
        s += "Expression: " + sgl.gen("expression")

    def select_by(method: Any) -> Callable[[Any], None]:
        def select(s: Any) -> None:
            s += "I need a " + sgl.select("tool", ["calculator", "browser"], choices_method=method)

        return select

    def fork(s: Any) -> None:
        s += "Two tips: 1. Sleep. 2. Walk.\n"
        s.sync()
        forks = s.fork(2)
        for i, fork in enumerate(forks):
            fork += f"Tip {i + 1}:" + sgl.gen("tip", stop="\n")
            fork.sync()
        forks.join()
        s += "Tips: " + s["tip"][0] + s["tip"][1] + sgl.gen("summary")

    def copy(s: Any) -> None:
        s += "A"
        with s.copy() as inner:
            inner += "B" + sgl.gen("aside")
        s += "C" + sgl.gen("x")

    def scope(s: Any) -> None:
        with s.var_scope("whole"):
            s += "Once " + sgl.gen("x") + " upon"
        s["y"] = "set"
        s += s["whole"] + sgl.gen("z")

    def stop_regex(s: Any) -> None:
        s += "Count: " + sgl.gen("x", stop_regex=r"[0-9]{3}")

    def image(s: Any) -> None:
        s += sgl.user(sgl.image(PNG) + "What is this?") + sgl.assistant(sgl.gen("x"))

    def image_select(s: Any) -> None:
        s += sgl.image(PNG) + "A cat or a dog? A " + sgl.select("x", ["cat", "dog"])

    def samples(s: Any) -> None:
        s += "Roll: " + sgl.gen("x", n=2)

    def question(s: Any, question: Any) -> None:
        s += "Q: " + question + "\nA:" + sgl.gen("x", stop="\n")

    def streamed(backend: Any) -> Sequence[Any]:
        state = sgl.function(plain).run(backend=backend, stream=True)
        assert "".join(state.text_iter()) == state.text()
        return [state]

    def cache(backend: Any) -> Sequence[Any]:
        sgl.function(chat).cache(backend)
        return []

    def batch(backend: Any) -> Sequence[Any]:
        items = [{"question": "1+1?"}, {"question": "2+2?"}]
        return sgl.function(question).run_batch(items, num_threads=1, backend=backend)

    knows_stop_regex = "stop_regex" in inspect.signature(sgl.gen).parameters  # SGLang's client since 0.5
    return {
        **({"stop_regex": one(stop_regex)} if knows_stop_regex else {}),
        "plain": one(plain),
        "settings": one(settings),
        "run_defaults": one(plain, max_new_tokens=9, temperature=0.25, stop="\n", top_p=0.5),
        "gen_over_run": one(settings, max_new_tokens=9, temperature=0.25, stop="never", top_k=3),
        "chat": one(chat),
        "default_system": one(default_system),
        "bound_roles": one(bound_roles),
        "dtypes": one(dtypes),
        "regex": one(regex),
        "schema": one(schema),
        "select": one(select),
        "select_greedily": one(select_by(sgl.greedy_token_selection)),
        "select_by_gain": one(select_by(sgl.unconditional_likelihood_normalized)),
        "fork": one(fork),
        "copy": one(copy),
        "scope": one(scope),
        "image": one(image),
        "image_select": one(image_select),
        "samples": one(samples),
        "streamed": streamed,
        "cache": cache,
        "batch": batch,
    }
