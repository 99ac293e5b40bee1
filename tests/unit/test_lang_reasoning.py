"""Reasoning that is told apart from the answer, whole and while it streams."""

from __future__ import annotations

import random
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.lang.events import Reasoning, Text
from sgl_jupyter.lang.program import begin_state
from sgl_jupyter.lang.reasoning import FORMATS, ReasoningSplitter, split_reasoning

from .fake_backend import FakeBackend

THOUGHT = "<think>\nTwo and\n\ntwo. < is less.\n</think>\n\nIt is  4.\n"


@pytest.mark.parametrize(
    ("model_type", "text", "reasoning", "answer"),
    [
        ("qwen3", THOUGHT, "Two and\n\ntwo. < is less.", "It is  4."),
        ("qwen3", " It is 4.", "", "It is 4."),
        ("qwen3", "<th", "", "<th"),
        ("deepseek-r1", THOUGHT, "Two and\n\ntwo. < is less.", "It is  4."),
        ("deepseek-r1", "Two.</think>It is 4.", "Two.", "It is 4."),
        ("deepseek-r1", "Two and </thi", "Two and </thi", ""),
        ("kimi", "◁think▷a◁/think▷b", "a", "b"),
        ("qwen3", "<think>a</think>b</think>c", "a", "b</think>c"),
        ("qwen3", "", "", ""),
    ],
)
def test_reasoning_is_what_stands_before_the_end_marker(
    model_type: str, text: str, reasoning: str, answer: str
) -> None:
    assert split_reasoning(FORMATS[model_type], text) == (reasoning, answer)


def test_it_does_not_matter_how_a_text_is_cut_into_chunks() -> None:
    cuts = random.Random(7)
    for text in (THOUGHT, "  <think>a</think>  b  c ", "no thought at all\n"):
        whole = split_reasoning(FORMATS["qwen3"], text)
        for _ in range(100):
            splitter, rest, parts = ReasoningSplitter(FORMATS["qwen3"]), text, []
            while rest:
                size = cuts.randint(1, 4)
                parts += splitter.feed(rest[:size])
                rest = rest[size:]
            parts += splitter.rest()
            joined = tuple("".join(t for kind, t in parts if kind == k) for k in ("reasoning", "answer"))
            assert joined == whole


def test_ub24_the_text_goes_on_with_the_answer_and_keeps_what_the_turn_began_with() -> None:
    backend = FakeBackend(["<think>\nTwo and", " two.\n</think>\n\nIt", " is 4.\n"], "Yes.", template="chatml")
    s = begin_state(backend)
    s += sgl.user("2+2?") + sgl.assistant("Well: " + sgl.separate_reasoning(sgl.gen("a"), "qwen3") + "!")
    s += sgl.user("Sure?") + sgl.assistant(sgl.gen("b"))
    assert (s["a"], s["a_reasoning_content"], s["b"]) == ("It is 4.", "Two and two.", "Yes.")
    assert s.messages()[1]["content"] == "Well: It is 4.!"
    assert "think" not in backend.prompts[1]


def test_reasoning_streams_as_events_of_its_own_and_as_a_variable() -> None:
    @sgl.function
    def asks(s: Any) -> None:
        s += sgl.separate_reasoning(sgl.gen("a"), "deepseek-r1")

    backend = FakeBackend(["Two", " and two.", "</think>", "It is", " 4."])
    state = asks.run(backend=backend, stream=True)
    assert list(state.text_iter("a_reasoning_content")) != []
    assert "".join(state.text_iter("a_reasoning_content")) == "Two and two."
    assert "".join(state.text_iter("a")) == state.text() == "It is 4."
    told = [(type(event), event.text) for event in state.log.events if isinstance(event, Reasoning | Text)]
    assert told == [(Reasoning, "Two"), (Reasoning, " and two."), (Text, "It is"), (Text, " 4.")]


def test_each_of_n_samples_has_its_own_reasoning() -> None:
    s = begin_state(FakeBackend("<think>x</think>y"))
    s += sgl.separate_reasoning(sgl.gen("a", n=2), "qwen3")
    assert (s["a"], s["a_reasoning_content"], s.text()) == (["y", "y"], ["x", "x"], "y")


def test_what_cannot_be_separated_is_told_where_it_is_written() -> None:
    with pytest.raises(ValueError, match=r"Unsupported model type: 'qwen-3'.*did you mean 'qwen3'"):
        sgl.separate_reasoning(sgl.gen("a"), "qwen-3")
    with pytest.raises(ValueError, match="model_type must be given"):
        sgl.separate_reasoning(sgl.gen("a"))
    with pytest.raises(ValueError, match="name must be provided"):
        sgl.separate_reasoning(sgl.gen(), "qwen3")
    with pytest.raises(TypeError, match="needs a gen"):
        sgl.separate_reasoning(sgl.select("a", ["x"]), "qwen3")
