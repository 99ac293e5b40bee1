"""The stream of events that display, recording and coroutines share: tokens, usage, and how it is followed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import Chunk
from sgl_jupyter.lang.events import Text, Token, Tokens, Usage
from sgl_jupyter.lang.program import begin_state

from .fake_backend import FakeBackend

PROMPT = [[None, 5, "The"], [-0.5, 6, " sky"], [-0.25, 7, " is"]]
OUTPUT = [[-0.1, 8, " blue"], [-0.2, 9, "."]]


class Scoring(FakeBackend):
    """Tells log-probabilities as SGLang does: all of them so far with each chunk."""

    async def generate(self, prompt: Any, params: Any) -> Any:
        counts = {"prompt_tokens": 4, "cached_tokens": 3}
        for n, (_, _, text) in enumerate(OUTPUT, 1):
            logprobs = {"input_token_logprobs": PROMPT, "output_token_logprobs": OUTPUT[:n]}
            yield Chunk(str(text), {**counts, **logprobs, "completion_tokens": n})


@sgl.function
def program(s: Any) -> None:
    s += "The sky is" + sgl.gen("color", return_logprob=True, logprob_start_len=1)


def test_tokens_come_with_their_log_probability_and_whether_they_were_cached() -> None:
    log = program.run(backend=Scoring()).log
    tokens = [event for event in log if isinstance(event, Tokens)]
    assert tokens == [
        Tokens(
            "color",
            "prompt",
            (Token(5, "The", None, True), Token(6, " sky", -0.5, True), Token(7, " is", -0.25, False)),
        ),
        Tokens("color", "generated", (Token(8, " blue", -0.1),)),
        Tokens("color", "generated", (Token(9, ".", -0.2),)),
    ]


def test_each_generation_tells_what_it_took() -> None:
    (usage,) = (event for event in program.run(backend=Scoring()).log if isinstance(event, Usage))
    assert usage == Usage("color", prompt_tokens=4, cached_tokens=3, completion_tokens=2, seconds=123)
    assert 0 <= usage.seconds < 10


def test_all_samples_count_in_the_usage() -> None:
    s = begin_state(FakeBackend("x"))
    s += sgl.gen("x", n=3)
    s.end()
    assert [event.completion_tokens for event in s.log if isinstance(event, Usage)] == [3]


@pytest.mark.parametrize("from_the_start", [True, False])
def test_coroutines_follow_a_run_from_its_first_event(from_the_start: bool) -> None:
    async def follow() -> str:
        state = program.run(backend=Scoring(), stream=True)
        if not from_the_start:
            await asyncio.to_thread(state.sync)
        return "".join([event.text async for event in state.log if isinstance(event, Text)])

    assert asyncio.run(follow()) == "The sky is blue."


def test_many_programs_run_in_one_loop() -> None:
    @sgl.function
    def asks(s: Any, i: int) -> None:
        s += f"{i}:" + sgl.gen("x")

    async def gather() -> list[str]:
        backend = FakeBackend(lambda prompt: prompt * 2)
        states = await asyncio.gather(*(asks.arun(i, backend=backend) for i in range(50)))
        return [state["x"] for state in states]

    assert asyncio.run(gather()) == [f"{i}:{i}:" for i in range(50)]


class Forcing(FakeBackend):
    """Tells what its constraint forced, as kernel_engine does: all spans so far with each chunk."""

    async def generate(self, prompt: Any, params: Any) -> Any:
        yield Chunk('{"na', {"forced_spans": [(0, 9)]})  # a stream may bring a span in parts
        yield Chunk('me": "Bo", "n', {"forced_spans": [(0, 9), (12, 18)]})
        yield Chunk('": 7', {"forced_spans": [(0, 9), (12, 18)]})


def test_what_the_constraint_forced_is_told_from_what_the_model_chose() -> None:
    s = begin_state(Forcing())
    s += "JSON: " + sgl.gen("object", regex=".*")
    s.end()
    pieces = [(event.origin, event.text) for event in s.log if isinstance(event, Text)]
    assert pieces == [
        ("prompt", "JSON: "),
        ("forced", '{"na'),
        ("forced", 'me": '),
        ("generated", '"Bo'),
        ("forced", '", "n'),
        ("forced", '"'),
        ("generated", ": 7"),
    ]
    assert s["object"] == '{"name": "Bo", "n": 7'
