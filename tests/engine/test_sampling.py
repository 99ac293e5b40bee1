"""Draws have the distribution that the parameters define, and the same draw comes out wherever a request is computed."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from kernel_engine import sampling
from kernel_engine.request import Request, Sequence
from kernel_engine.sampling_params import SamplingParams
from kernel_engine.text import TextStream
from kernel_engine.vision.prompt import Prompt

from .support import EOS, VOCAB, StepEngine, byte_tokenizer, random_module

DRAWS = 6000
BYTES = byte_tokenizer().backend_tokenizer


def sequence(seed: int = 0, prompt: tuple[int, ...] = (1, 2), output: tuple[int, ...] = (), **params: Any) -> Sequence:
    checked = SamplingParams.from_json(params)
    request = Request(rid=str(seed), prompt=Prompt(list(prompt)), params=checked)
    made = Sequence(request, max_new_tokens=99, seed=seed, text=TextStream(BYTES, checked, []))
    made.tokens += output
    made.output_counts.update(output)
    return made


def logits_of(vocabulary: int) -> torch.Tensor:
    return torch.randn(vocabulary, generator=torch.Generator().manual_seed(3)) * 2


def distribution(
    logits: list[float], temperature: float = 1.0, top_k: int = -1, top_p: float = 1.0, min_p: float = 0.0
) -> dict[int, float]:
    """By definition: softmax, then each cut against the whole distribution, then renormalised."""
    top = max(logits)
    weights = [math.exp((value - top) / temperature) for value in logits]
    probability = [weight / sum(weights) for weight in weights]
    kept, before = {}, 0.0
    for rank, token in enumerate(sorted(range(len(logits)), key=lambda i: -logits[i])):
        if (top_k == -1 or rank < top_k) and before <= top_p and probability[token] >= min_p * max(probability):
            kept[token] = probability[token]
        before += probability[token]
    return {token: value / sum(kept.values()) for token, value in kept.items()}


def excess(counts: Counter[int], wanted: dict[int, float]) -> float:
    """Pearson's chi-square against `wanted`, in standard deviations over its mean; rare tokens count as one."""
    total, cells, rare = counts.total(), [], [0.0, 0.0]
    for token, share in wanted.items():
        if share * total >= 5:
            cells.append((counts[token], share * total))
        else:
            rare[0], rare[1] = rare[0] + counts[token], rare[1] + share * total
    cells += [(rare[0], rare[1])] if rare[1] > 1 else []
    freedom = max(1, len(cells) - 1)
    return (sum((seen - mean) ** 2 / mean for seen, mean in cells) - freedom) / math.sqrt(2 * freedom)


CUTS = [
    {},
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"temperature": 1.5, "top_k": 12, "top_p": 0.8, "min_p": 0.05},
]


@pytest.mark.parametrize("vocabulary", [40, 1500])
@pytest.mark.parametrize("params", CUTS, ids=str)
def test_draws_have_the_distribution(params: dict[str, Any], vocabulary: int):
    logits = logits_of(vocabulary)
    sequences = [sequence(seed, **params) for seed in range(DRAWS)]
    drawn = [
        token
        for i in range(0, DRAWS, 1000)
        for token in sampling.sample(logits.repeat(1000, 1), sequences[i : i + 1000])
    ]
    wanted = distribution(logits.tolist(), **params)
    assert set(drawn) <= set(wanted)
    assert abs(excess(Counter(drawn), wanted)) < 5


def test_one_seed_draws_anew_at_every_position():
    logits = logits_of(40)
    drawn = [sampling.sample(logits[None], [sequence(7, prompt=(1,) * n)])[0] for n in range(1, 2000)]
    assert abs(excess(Counter(drawn), distribution(logits.tolist()))) < 5


def test_a_nucleus_wider_than_the_usual_number_of_candidates():
    logits = torch.zeros(3 * sampling.NUCLEUS)
    drawn = [t for seed in range(300) for t in sampling.sample(logits[None], [sequence(seed, top_p=0.999)])]
    assert len({token // sampling.NUCLEUS for token in drawn}) == 3


@pytest.mark.parametrize("params", [{"temperature": 0}, {"temperature": 5.0, "top_k": 1}])
def test_greedy_is_the_arg_max(params: dict[str, Any]):
    logits = logits_of(300)
    assert sampling.sample(logits[None], [sequence(**params)]) == [int(logits.argmax())]


@pytest.mark.parametrize("params", CUTS, ids=str)
@pytest.mark.parametrize("vocabulary", [40, 1500])
def test_a_draw_does_not_depend_on_its_neighbours(params: dict[str, Any], vocabulary: int):
    rows = torch.stack([logits_of(vocabulary), logits_of(vocabulary).flip(0), torch.zeros(vocabulary)])
    neighbours = [sequence(1, **other) for other in ({"temperature": 0}, {"top_p": 0.999}, {"top_k": 3}, {})]
    for seed in range(20):
        mine = sequence(seed, **params)
        alone = sampling.sample(rows[:1], [mine])
        for neighbour in neighbours:
            for other in (1, 2):
                assert sampling.sample(rows[[0, other]], [mine, neighbour])[0] == alone[0]


def test_a_huge_temperature_makes_no_nan():
    logits = torch.tensor([[1.0, -torch.inf, 2.0, -torch.inf]])
    drawn = {sampling.sample(logits, [sequence(seed, temperature=1e300)])[0] for seed in range(50)}
    assert drawn == {0, 2}


# -- penalties and biases -----------------------------------------------------------------------------------------------


def adjusted(made: Sequence, stop_tokens: list[int] | None = None) -> tuple[list[float], list[float]]:
    logits = logits_of(20)
    row = logits.clone()[None]
    sampling.adjust(row, [made], stop_tokens or [])
    return logits.tolist(), row[0].tolist()


def test_penalties_and_biases_by_definition():
    made = sequence(
        prompt=(1, 2, 3), output=(3, 4, 4), repetition_penalty=1.5, frequency_penalty=0.5, presence_penalty=0.25,
        logit_bias={"4": 3.0, "9": -100.0},
    )  # fmt: skip
    before, after = adjusted(made)
    for token, value in enumerate(before):
        if token in {1, 2, 3, 4}:
            value = value / 1.5 if value > 0 else value * 1.5
        count = {3: 1, 4: 2}.get(token, 0)
        value -= 0.5 * count + (0.25 if count else 0)
        value += {4: 3.0, 9: -100.0}.get(token, 0)
        assert after[token] == pytest.approx(value, abs=1e-5)


def test_without_parameters_logits_stay_as_they_are():
    before, after = adjusted(sequence(output=(3, 4)))
    assert before == after


def test_one_sequences_penalty_leaves_its_neighbour_alone():
    logits = logits_of(20).repeat(2, 1)
    sampling.adjust(logits, [sequence(output=(3,), presence_penalty=1.0), sequence(output=(3,))], [])
    assert (logits[0, 3] - logits[1, 3]).item() == pytest.approx(-1.0)
    assert logits[1].tolist() == logits_of(20).tolist()


def test_min_new_tokens_forbids_what_would_end_the_text():
    early, late = sequence(min_new_tokens=2, stop_token_ids=[6]), sequence(output=(1, 1), min_new_tokens=2)
    before, after = adjusted(early, [5])
    assert [i for i, value in enumerate(after) if value == -math.inf] == [5, 6]
    assert adjusted(late, [5])[1] == before


def test_stop_ids_beyond_the_vocabulary_are_harmless():
    before, after = adjusted(sequence(min_new_tokens=2, stop_token_ids=[10**6]))
    assert before == after


# -- through the engine -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def module():
    return random_module()


SEEDED = {"temperature": 1.2, "top_p": 0.9, "max_new_tokens": 25, "ignore_eos": True}


def test_a_seeded_output_is_the_same_alone_in_a_batch_and_after_retraction(module: Any):
    prompts = [[n, 5, 9, 200, 7, n, 4, 4] for n in range(5)]
    alone = [StepEngine(module).generate(p, sampling_seed=n, **SEEDED).tokens for n, p in enumerate(prompts)]
    assert len({*map(tuple, alone)}) == 5
    for options in ({}, {"slots": 60, "conservativeness": 0.0}, {"chunk": 3}):
        engine = StepEngine(module, **options)
        rids = [engine.add(p, sampling_seed=n, **SEEDED) for n, p in enumerate(prompts)]
        engine.add([3, 4, 5], temperature=2.0)
        engine.run()
        assert [engine.results[rid].tokens for rid in rids] == alone
        assert any(engine.results[rid].last.retractions for rid in rids) == ("slots" in options)


def test_unseeded_requests_differ(module: Any):
    engine = StepEngine(module)
    rids = [engine.add([1, 2, 3], temperature=2.0, ignore_eos=True) for _ in range(6)]
    engine.run()
    assert len({tuple(engine.results[rid].tokens) for rid in rids}) == 6


def test_eos_ends_unless_it_is_ignored(module: Any):
    engine = StepEngine(module)
    forced = {"logit_bias": {str(EOS): 1000}, "max_new_tokens": 5}
    result = engine.generate([1, 2, 3], **forced)
    assert (result.tokens, result.text, result.finish) == ([EOS], "", {"type": "stop", "matched": EOS})
    assert engine.generate([1, 2, 3], no_stop_trim=True, skip_special_tokens=False, **forced).text == "<eos>"
    result = engine.generate([1, 2, 3], ignore_eos=True, **forced)
    assert (result.tokens, result.finish) == ([EOS] * 5, {"type": "length", "length": 5})


def test_min_new_tokens(module: Any):
    result = StepEngine(module).generate([1, 2, 3], logit_bias={str(EOS): 1000}, min_new_tokens=3, max_new_tokens=9)
    assert len(result.tokens) == 4
    assert result.tokens.index(EOS) == 3


def test_stop_token_ids(module: Any):
    engine = StepEngine(module)
    free = engine.generate([1, 2, 3], max_new_tokens=12, ignore_eos=True)
    stop = free.tokens[6]
    result = engine.generate([1, 2, 3], max_new_tokens=12, ignore_eos=True, stop_token_ids=[stop])
    assert result.finish == {"type": "stop", "matched": stop}
    assert result.tokens == free.tokens[: free.tokens.index(stop) + 1]


def test_stop_strings(module: Any):
    engine = StepEngine(module)
    bias = {str(token): -1000 for token in range(VOCAB) if not 97 - 33 <= token <= 122 - 33}
    free = engine.generate([1, 2, 3], max_new_tokens=20, logit_bias=bias, temperature=1.0, sampling_seed=1)
    assert free.text.isalpha()
    stop = free.text[8:11]
    cut = engine.generate([1, 2, 3], max_new_tokens=20, logit_bias=bias, temperature=1.0, sampling_seed=1, stop=stop)
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.finish == {"type": "stop", "matched": stop}


def test_no_new_tokens(module: Any):
    result = StepEngine(module).generate([1, 2, 3], max_new_tokens=0)
    assert (result.text, result.tokens, result.finish) == ("", [], {"type": "length", "length": 0})


def test_no_limit_goes_to_the_end_of_the_context(module: Any):
    engine = StepEngine(module, slots=50)
    result = engine.generate([1, 2, 3], max_new_tokens=None, ignore_eos=True)
    assert result.finish == {"type": "length", "length": 47}
