"""The prompt tokens computed for the four shapes of traffic that prompt programs make are the least possible."""

from __future__ import annotations

import pytest

from .simulation import END, Simulation


def block(symbol: int, length: int) -> list[int]:
    """Text that shares no prefix with another block."""
    return [1000 + symbol, *(symbol * 7 + i for i in range(length - 1))]


@pytest.mark.parametrize("chunk", [100, 512, 8192])
@pytest.mark.parametrize("order", ["lpm", "fcfs"])
def test_few_shot_batch_of_64_arriving_cold_at_once(chunk: int, order: str):
    simulation = Simulation(slots=20_000, rows=64, chunk=chunk, order=order)
    examples = block(0, 1000)
    for n in range(64):
        simulation.add(examples + block(n + 1, 50), 3)
    simulation.run()
    assert simulation.prompt_computed == 1000 + 64 * 50 == 4200


def test_few_shot_batch_without_the_cache():
    simulation = Simulation(slots=80_000, rows=64, share_prefixes=False)
    for n in range(64):
        simulation.add(block(0, 1000) + block(n + 1, 50))
    simulation.run()
    assert simulation.prompt_computed == 67_200


def chat(answers_end_themselves: bool) -> int:
    simulation = Simulation(slots=20_000)
    conversation = block(0, 500)
    for turn in range(8):
        conversation = conversation + block(turn + 1, 200)
        answer = block(50 + turn, 150)
        simulation.add(
            conversation, 150 + answers_end_themselves, answer=[*answer, END][: 150 + answers_end_themselves]
        )
        simulation.run()
        conversation = conversation + answer
    return simulation.prompt_computed


def test_chat_of_eight_turns():
    assert chat(answers_end_themselves=True) == 500 + 8 * 200 == 2100


def test_the_last_token_of_a_cut_answer_is_computed_with_the_next_turn():
    assert chat(answers_end_themselves=False) == 2100 + 7


@pytest.mark.parametrize("stem_is_cached", [True, False])
def test_fork_of_eight(stem_is_cached: bool):
    simulation = Simulation(slots=20_000)
    stem = block(0, 2000)
    if stem_is_cached:
        simulation.add(stem, 0)
        simulation.run()
    for n in range(8):
        simulation.add(stem + block(n + 1, 20), 5)
    simulation.run()
    assert simulation.prompt_computed == 2000 + 8 * 20


def test_eight_choices_of_four_tokens():
    """SGLang's protocol: the prompt once, then every choice scored from two tokens before the prompt's end."""
    simulation = Simulation(slots=20_000)
    prompt = block(0, 600)
    simulation.add(prompt, 0)
    simulation.run()
    choices = [simulation.add(prompt + block(n + 1, 4), 0, score_from=598) for n in range(8)]
    simulation.run()
    assert simulation.prompt_computed == 600 + 8 * (4 + 2) == 648
    assert all(len(choice.input_logprobs) == 6 for choice in choices)
