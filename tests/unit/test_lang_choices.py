"""The three choice methods: their mathematics, on log-probabilities as a backend gives them."""

from __future__ import annotations

from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import ChoiceScore
from sgl_jupyter.lang.choices import ChoicesDecision, ChoicesSamplingMethod, decide
from sgl_jupyter.lang.program import begin_state

from .fake_backend import FakeBackend

CHOICES = ["long", "short"]


def score(*logprobs: float, alone: list[float | None] | None = None) -> ChoiceScore:
    unconditional = None if alone is None else [(logprob, i, None) for i, logprob in enumerate(alone)]
    return ChoiceScore([(logprob, i, None) for i, logprob in enumerate(logprobs)], unconditional)


def test_token_length_normalized_takes_the_highest_mean() -> None:
    scores = [score(-1.0, -0.2, -0.3), score(-0.9)]
    decision = decide(sgl.token_length_normalized, CHOICES, scores)
    assert decision.decision == "long"
    assert decision.meta_info is not None
    assert decision.meta_info["normalized_prompt_logprobs"] == pytest.approx([-0.5, -0.9])


def test_a_certain_token_counts_in_the_mean() -> None:
    decision = decide(sgl.token_length_normalized, CHOICES, [score(-1.0, 0.0), score(-0.6)])
    assert decision.decision == "long", "a log-probability of exactly 0 is a probability of 1, not a missing one"


def test_ties_go_to_the_first() -> None:
    for method in (sgl.token_length_normalized, sgl.greedy_token_selection):
        assert decide(method, CHOICES, [score(-0.5), score(-0.5)]).decision == "long"


def test_ub9_greedy_token_selection_takes_the_best_first_token_whatever_follows() -> None:
    decision = decide(sgl.greedy_token_selection, CHOICES, [score(-0.5, -9.0), score(-0.6)])
    assert decision.decision == "long"


def test_ub9_greedy_token_selection_goes_on_while_tokens_are_equal() -> None:
    decision = decide(sgl.greedy_token_selection, CHOICES, [score(-0.5, -2.0), score(-0.5, -1.0)])
    assert decision.decision == "short"


def test_greedy_token_selection_pads_a_short_choice_with_its_mean() -> None:
    decision = decide(sgl.greedy_token_selection, CHOICES, [score(-0.5, -0.4, -0.1), score(-0.5, -0.4)])
    assert decision.decision == "long"
    assert decision.meta_info is not None
    assert decision.meta_info["greedy_logprob_matrix"][1] == pytest.approx([-0.5, -0.4, -0.45])


def test_ub9_unconditional_likelihood_normalized_takes_the_largest_gain() -> None:
    common = score(-0.5, -0.5, alone=[None, -0.1])  # likely anyway: (-0.5 - 0) + (-0.5 + 0.1)
    telling = score(-0.9, -0.9, alone=[None, -5.0])  # (-0.9 - 0) + (-0.9 + 5)
    decision = decide(sgl.unconditional_likelihood_normalized, CHOICES, [common, telling])
    assert decision.decision == "short"
    assert decision.meta_info is not None
    assert decision.meta_info["normalized_unconditional_prompt_logprobs"] == pytest.approx([-0.45, 1.6])


def test_unconditional_likelihood_normalized_needs_its_second_measurement() -> None:
    with pytest.raises(ValueError, match="Unconditional token logprobs are required"):
        decide(sgl.unconditional_likelihood_normalized, CHOICES, [score(-1.0), score(-1.0)])


def test_select_appends_the_decision_and_keeps_the_numbers() -> None:
    s = begin_state(FakeBackend())
    s += "It is " + sgl.select("x", ["cold", "warm"]) + "."
    assert (s.text(), s["x"]) == ("It is cold.", "cold")
    meta_info = s.get_meta_info("x")
    assert meta_info is not None
    assert meta_info["normalized_prompt_logprobs"] == [-1.0, -2.0]


def test_a_method_of_ones_own_can_choose() -> None:
    class Last(ChoicesSamplingMethod):
        def __call__(self, *, choices: list[str], **_: Any) -> ChoicesDecision:  # pyright: ignore
            return ChoicesDecision(choices[-1])

    s = begin_state(FakeBackend())
    s += "x" + sgl.gen("x", choices=["a", "b"], choices_method=Last())
    assert s["x"] == "b"


def test_a_choice_at_the_very_beginning_of_a_text_is_a_clear_error() -> None:
    s = begin_state(FakeBackend())
    s += sgl.select("x", ["a", "b"])
    with pytest.raises(ValueError, match="needs text before it"):
        s.text()
