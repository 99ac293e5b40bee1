"""Log-probabilities are those of a plain forward pass of the model, at every position, however they were computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernel_engine.errors import RequestError
from kernel_engine.logprobs import log_softmax
from kernel_engine.request import LogprobEntry, LogprobRequest

from .support import Oracle, Result, StepEngine, random_module

PROMPT = [17, 5, 200, 31, 77, 8, 150, 150, 44, 9, 63]
WAYS: dict[str, dict[str, Any]] = {
    "whole": {},
    "chunked": {"chunk": 3},
    "one by one": {"chunk": 1},
    "uncached": {"share_prefixes": False},
}


@pytest.fixture(scope="module")
def module():
    return random_module()


@pytest.fixture(scope="module")
def oracle():
    return Oracle(random_module())


def check(entry: LogprobEntry, distribution: torch.Tensor, wanted: LogprobRequest) -> None:
    assert entry.logprob == pytest.approx(distribution[entry.token].item(), abs=1e-4)
    if wanted.top:
        assert entry.top is not None
        values, ids = (list(part) for part in zip(*entry.top, strict=True))
        assert ids == distribution.topk(wanted.top).indices.tolist()
        assert values == pytest.approx(distribution[ids].tolist(), abs=1e-4)
    if wanted.token_ids:
        assert entry.chosen_ids is not None
        assert [token for _, token in entry.chosen_ids] == list(wanted.token_ids)
        values = [value for value, _ in entry.chosen_ids]
        assert values == pytest.approx(distribution[list(wanted.token_ids)].tolist(), abs=1e-4)


def check_all(result: Result, prompt: list[int], wanted: LogprobRequest, oracle: Oracle) -> None:
    """Every entry of the result against one forward pass over prompt and output."""
    distributions = oracle.logprobs(prompt + result.tokens)
    given = [entry for output in result.outputs for entry in output.input_logprobs]
    if wanted.start == -1:
        assert given == []
    else:
        assert result.last.prompt_tokens == len(prompt) == wanted.start + len(given)
        assert given[0] == LogprobEntry(None, prompt[wanted.start])
        assert [entry.token for entry in given] == prompt[wanted.start :]
        assert result.last.cached_tokens <= wanted.start
    for position, entry in enumerate(given[1:], max(0, wanted.start) + 1):
        check(entry, distributions[position - 1], wanted)
    outputs = [entry for output in result.outputs for entry in output.output_logprobs]
    assert [entry.token for entry in outputs] == result.tokens
    assert len(outputs) == result.last.completion_tokens
    for position, entry in enumerate(outputs, len(prompt)):
        check(entry, distributions[position - 1], wanted)


@pytest.mark.parametrize("way", WAYS)
def test_from_every_start(way: str, module: Any, oracle: Oracle):
    engine = StepEngine(module, **WAYS[way])
    for start in range(-1, len(PROMPT)):
        wanted = LogprobRequest(start=start)
        check_all(engine.generate(PROMPT, logprobs=wanted, max_new_tokens=4), PROMPT, wanted, oracle)


@pytest.mark.parametrize("way", WAYS)
def test_with_alternatives(way: str, module: Any, oracle: Oracle):
    engine = StepEngine(module, **WAYS[way])
    for wanted in (LogprobRequest(0, top=5), LogprobRequest(4, token_ids=(3, 250, 3)), LogprobRequest(2, 2, (9,))):
        check_all(engine.generate(PROMPT, logprobs=wanted, max_new_tokens=5), PROMPT, wanted, oracle)


def test_mixed_in_one_batch(module: Any, oracle: Oracle):
    engine = StepEngine(module, chunk=8)
    wishes = [LogprobRequest(start, top) for start, top in ((-1, 0), (0, 3), (5, 0), (10, 1))]
    prompts = [PROMPT, PROMPT[::-1], PROMPT, PROMPT[3:] + PROMPT[:3]]
    rids = [engine.add(p, logprobs=w, max_new_tokens=6) for p, w in zip(prompts, wishes, strict=True)]
    plain = engine.add(PROMPT)
    engine.run()
    for rid, prompt, wanted in zip(rids, prompts, wishes, strict=True):
        check_all(engine.results[rid], prompt, wanted, oracle)
    assert engine.results[plain].last.output_logprobs == []


def test_after_a_prefix_hit_only_the_scored_tail_is_computed(module: Any, oracle: Oracle):
    engine = StepEngine(module)
    engine.generate(PROMPT, max_new_tokens=0)
    wanted = LogprobRequest(start=7)
    result = engine.generate(PROMPT, logprobs=wanted)
    assert result.last.cached_tokens == 7
    check_all(result, PROMPT, wanted, oracle)


def test_after_retraction(module: Any, oracle: Oracle):
    engine = StepEngine(module, slots=64, chunk=4, conservativeness=0.0)
    prompts = [[n, *PROMPT[1:]] for n in range(5)]
    wanted = LogprobRequest(start=2, top=2)
    rids = [engine.add(p, logprobs=wanted, max_new_tokens=28, ignore_eos=True) for p in prompts]
    engine.run()
    assert any(engine.results[rid].last.retractions for rid in rids)
    for rid, prompt in zip(rids, prompts, strict=True):
        check_all(engine.results[rid], prompt, wanted, oracle)


def test_streamed_each_entry_comes_once(module: Any, oracle: Oracle):
    # Fails while the last output of a stream carries the input log-probabilities that the first one had.
    engine = StepEngine(module)
    wanted = LogprobRequest(start=3, top=1)
    rid = engine.add(PROMPT, logprobs=wanted, stream=True, max_new_tokens=5, ignore_eos=True)
    engine.run()
    assert len(engine.results[rid].outputs) == 5
    check_all(engine.results[rid], PROMPT, wanted, oracle)


def test_they_are_the_models_own_at_every_temperature(module: Any, oracle: Oracle):
    wanted = LogprobRequest(start=0, top=3)
    result = StepEngine(module).generate(
        PROMPT,
        logprobs=wanted,
        temperature=1.7,
        top_p=0.8,
        frequency_penalty=1.0,
        logit_bias={"5": 4.0},
        sampling_seed=1,
    )
    check_all(result, PROMPT, wanted, oracle)


def test_a_prompt_of_one_token(module: Any, oracle: Oracle):
    wanted = LogprobRequest(start=0)
    check_all(StepEngine(module).generate([4], logprobs=wanted), [4], wanted, oracle)


def test_scoring_without_generating(module: Any, oracle: Oracle):
    wanted = LogprobRequest(start=6)
    result = StepEngine(module).generate(PROMPT, logprobs=wanted, max_new_tokens=0)
    assert result.tokens == []
    check_all(result, PROMPT, wanted, oracle)


def test_a_start_beyond_the_prompt_is_refused(module: Any):
    with pytest.raises(RequestError, match="logprob_start_len must be below the prompt's length 11, got 11"):
        StepEngine(module).add(PROMPT, logprobs=LogprobRequest(start=len(PROMPT)))


def test_what_is_all_but_certain_is_not_quite_certain():
    """SGLang's client drops a log-probability of 0, and then has none left of a choice that the model is sure of."""
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(0)) + 40
    logits[torch.arange(6), [3, 0, 299, 7, 7, 9]] += torch.tensor([0.0, 5, 15, 25, 40, 60])
    logits[0, :2] = logits[0].max()  # two that are equal
    logits[1, 5] = -torch.inf
    found = log_softmax(logits.clone())
    assert (found < 0).all()
    torch.testing.assert_close(found.double(), logits.double().log_softmax(-1), rtol=1e-4, atol=1e-15)
