"""Speculative execution on models behind an API: one call where a program has several generations."""

from __future__ import annotations

from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.lang.speculation import SpeculationFailed

from .fake_backend import FakeBackend, within


class Api(FakeBackend):
    def __init__(self, *answers: str, chat: bool) -> None:
        super().__init__(*answers, template="default")
        self.is_chat_model = chat

    @property
    def calls(self) -> list[tuple[str, int, tuple[str, ...]]]:
        return [(prompt, params.max_new_tokens, params.stop) for prompt, params in self.requests]


@sgl.function(num_api_spec_tokens=64)
def character(s: Any, name: str) -> None:
    s += sgl.user(f"Who is {name}?")
    s += sgl.assistant(
        "Name: "
        + sgl.gen("name", stop="\n")
        + "\nBirthday: "
        + sgl.gen("birthday", stop="\n")
        + "\nJob: "
        + sgl.gen("job")
    )
    s += sgl.user("Thanks.")


ANSWER = "Name: Hermione\nBirthday: September 19\nJob: student of magic"


@pytest.mark.parametrize("answer", [ANSWER, f" {ANSWER}", ANSWER.removeprefix("Name: ")])
def test_a_chat_model_answers_a_whole_turn_in_one_call(answer: str) -> None:
    backend = Api(answer, chat=True)
    state = character.run("Hermione", backend=backend)
    assert (state["name"], state["birthday"], state["job"]) == ("Hermione", "September 19", "student of magic")
    assert state.messages()[1]["content"] == ANSWER
    assert backend.calls == [("USER:Who is Hermione?\nASSISTANT:", 64, ())]


def test_an_answer_that_does_not_fit_is_asked_for_again_and_then_an_error() -> None:
    backend = Api("I do not know.", ANSWER, chat=True)
    assert character.run("Hermione", backend=backend)["job"] == "student of magic"
    assert len(backend.requests) == 2
    backend = Api("I do not know.", chat=True)
    with pytest.raises(SpeculationFailed, match=r"3 answers did not fit.*'I do not know.'"):
        character.run("Hermione", backend=backend).sync()
    assert len(backend.requests) == 3


def test_a_variable_of_a_turn_that_is_not_over_says_so_and_does_not_hang() -> None:
    @sgl.function(num_api_spec_tokens=64)
    def reads(s: Any) -> None:
        with s.assistant():
            s += sgl.gen("x")
            s["x"]

    with pytest.raises(RuntimeError, match="'x' is set when its assistant turn ends"):
        within(5, lambda: reads.run(backend=Api("x", chat=True)))


@pytest.mark.parametrize("what", [sgl.select("x", ["a"]), sgl.gen("x", regex="a"), sgl.gen("x", n=2)])
def test_what_cannot_be_matched_in_a_turn_names_the_backend(what: Any) -> None:
    @sgl.function(num_api_spec_tokens=64)
    def program(s: Any) -> None:
        s += sgl.assistant("Well: " + what)

    with pytest.raises(sgl.UnsupportedFeature, match="Api does not support"):
        program.run(backend=Api("x", chat=True)).sync()


def test_scopes_and_set_variables_are_kept_in_their_places() -> None:
    @sgl.function(num_api_spec_tokens=64)
    def program(s: Any) -> None:
        with s.assistant():
            with s.var_scope("both"):
                s += "A: " + sgl.gen("a", stop="\n") + "\nB: " + sgl.gen("b")
            s["c"] = 3

    state = program.run(backend=Api("A: 1\nB: 2", chat=True))
    assert (state["both"], state["a"], state["b"], state["c"]) == ("A: 1\nB: 2", "1", "2", 3)


@sgl.function(num_api_spec_tokens=64)
def lines(s: Any) -> None:
    s += (
        "Name:"
        + sgl.gen("name", stop="\n", max_tokens=8)
        + "\nJob:"
        + sgl.gen("job", stop="\n", max_tokens=8)
        + "\nEnd"
    )


def test_a_model_that_continues_text_writes_ahead() -> None:
    backend = Api(" Harry\nJob: wizard\nPet: owl", chat=False)
    state = lines.run(backend=backend)
    assert (state["name"], state["job"], state.text()) == (" Harry", " wizard", "Name: Harry\nJob: wizard\nEnd")
    assert backend.calls == [("Name:", 64, ())]


def test_what_was_written_ahead_otherwise_than_the_program_goes_on_is_asked_for_anew() -> None:
    backend = Api(" Harry\nAge: 11\n", " wizard\n", chat=False)
    state = lines.run(backend=backend)
    assert (state["name"], state["job"]) == (" Harry", " wizard")
    assert [prompt for prompt, _, _ in backend.calls] == ["Name:", "Name: Harry\nJob:"]


def test_generations_whose_end_only_the_server_knows_are_asked_for_one_by_one() -> None:
    @sgl.function(num_api_spec_tokens=64)
    def program(s: Any) -> None:
        s += "A" + sgl.gen("x", max_tokens=4) + "B" + sgl.gen("y", regex="[ab]+", stop="\n")

    backend = Api("x", chat=False)
    program.run(backend=backend).sync()
    assert [limit for _, limit, _ in backend.calls] == [4, 128]


def test_an_engine_of_ones_own_is_asked_as_without_it() -> None:
    backend = FakeBackend("Hermione")
    character.run("Hermione", backend=backend).sync()
    assert len(backend.requests) == 3
    assert character.bind(name="x").num_api_spec_tokens == 64
