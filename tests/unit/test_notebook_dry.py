"""Programs without a model: holes where it would write."""

from __future__ import annotations

import pytest

from sgl_jupyter import assistant, gen, greedy_token_selection, select, unconditional_likelihood_normalized, user
from sgl_jupyter.lang.choices import ChoicesSamplingMethod, token_length_normalized
from sgl_jupyter.lang.dry import DryBackend
from sgl_jupyter.lang.program import begin_state
from sgl_jupyter.lang.state import ProgramState
from sgl_jupyter.notebook.run import Run
from sgl_jupyter.notebook.text import plain


def test_shows_the_prompt_with_holes() -> None:
    state = begin_state(DryBackend())
    state += user("Why?")
    state += assistant("Because " + gen("reason", max_tokens=8) + gen("more", n=2))
    assert plain(Run.from_log(_ended(state).log)) == (
        "user:\nWhy?\n\nassistant:\nBecause reason=«…»more=«…»\n[2 of 2] «…»"
    )


@pytest.mark.parametrize(
    "method", [token_length_normalized, greedy_token_selection, unconditional_likelihood_normalized]
)
def test_takes_the_first_choice(method: ChoicesSamplingMethod) -> None:
    state = begin_state(DryBackend())
    state += "I take " + select("tool", ["calculator", "search"], choices_method=method)
    assert _ended(state)["tool"] == "calculator"


def test_uses_the_template_of_what_the_program_would_run_on() -> None:
    like = DryBackend()
    like.model_path = "tiny-chat"
    state = begin_state(DryBackend(like))
    state += user("Why?")
    assert "<|im_start|>user\nWhy?" in _ended(state).text()


def _ended(state: ProgramState) -> ProgramState:
    state.sync()
    state.end()
    return state
