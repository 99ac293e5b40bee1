"""Whatever else the engine does meanwhile, its greedy tokens are those of `transformers.generate` in fp32."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from .support import VOCAB, Oracle, StepEngine, examples, random_module

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"family": "llama"},
    "qwen2": {"family": "qwen2"},
    "qwen3": {"family": "qwen3"},
    "tied": {"family": "qwen2", "tie_word_embeddings": True},
}


@dataclass
class Twins:
    """Two modules with the same weights: one for engines, one for transformers."""

    module: PreTrainedModel
    oracle: Oracle

    def check(self, engine: StepEngine) -> None:
        for rid, result in engine.results.items():
            request = engine.requests[rid]
            limit = request.params.max_new_tokens
            assert limit is not None
            wanted = self.oracle.tokens(request.input_ids, limit)
            if result.finish["type"] == "abort":
                wanted = wanted[: len(result.tokens)]
            assert result.tokens == wanted, rid


@pytest.fixture(scope="module", params=FAMILIES)
def twins(request: pytest.FixtureRequest) -> Twins:
    options = FAMILIES[request.param]
    return Twins(random_module(**options), Oracle(random_module(**options)))


@pytest.fixture(scope="module")
def qwen2() -> Twins:
    return Twins(random_module("qwen2"), Oracle(random_module("qwen2")))


def prompts(*lengths: int) -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(VOCAB) for _ in range(length)] for length in lengths]


RAGGED = prompts(1, 3, 40, 17, 2, 29)


def test_alone(twins: Twins):
    engine = StepEngine(twins.module)
    for prompt in RAGGED:
        engine.generate(prompt)
    twins.check(engine)


def test_in_a_ragged_batch(twins: Twins):
    engine = StepEngine(twins.module)
    for prompt in RAGGED:
        engine.add(prompt)
    engine.step()
    assert not engine.engine.scheduler.waiting
    engine.run()
    twins.check(engine)


def test_with_chunked_prefill(twins: Twins):
    engine = StepEngine(twins.module, chunk=7)
    for prompt in RAGGED:
        engine.add(prompt)
    engine.run()
    twins.check(engine)


def test_after_a_prefix_hit(twins: Twins):
    engine = StepEngine(twins.module)
    first, other = prompts(30, 12)
    engine.generate(first)
    assert engine.generate(first).last.cached_tokens == 29
    assert engine.generate(first[:20] + other).last.cached_tokens == 20
    twins.check(engine)


def test_an_answer_is_reused_as_a_prefix(twins: Twins):
    engine = StepEngine(twins.module)
    prompt, question = prompts(20, 5)
    answer = engine.generate(prompt, max_new_tokens=10)
    assert answer.finish["type"] == "length"
    second = engine.generate(prompt + answer.tokens + question)
    assert second.last.cached_tokens == 20 + 9
    twins.check(engine)


def test_fork_shares_the_prefix_within_one_batch(twins: Twins):
    engine = StepEngine(twins.module, chunk=16)
    stem, *branches = prompts(40, 3, 5, 4, 6)
    rids = [engine.add(stem + branch) for branch in branches]
    engine.run()
    assert [engine.results[rid].last.cached_tokens for rid in rids] == [0, 40, 40, 40]
    twins.check(engine)


def test_arriving_while_others_decode(twins: Twins):
    engine = StepEngine(twins.module, chunk=7)
    for prompt in RAGGED:
        engine.add(prompt, max_new_tokens=20)
        engine.steps(3)
    engine.run()
    twins.check(engine)


def test_abort_of_a_neighbour(twins: Twins):
    engine = StepEngine(twins.module, chunk=16)
    rids = [engine.add(prompt, max_new_tokens=20) for prompt in RAGGED]
    for steps, rid in ((1, rids[2]), (4, rids[0])):
        engine.steps(steps)
        engine.abort(rid)
    engine.run()
    assert [engine.results[rid].finish["type"] == "abort" for rid in rids] == [True, False, True, False, False, False]
    twins.check(engine)


@pytest.mark.parametrize("share", [True, False])
def test_a_pool_so_small_that_requests_are_retracted(twins: Twins, share: bool):
    engine = StepEngine(twins.module, slots=64, conservativeness=0.0, share_prefixes=share)
    rids = [engine.add(prompt, max_new_tokens=28) for prompt in prompts(9, 12, 5, 10, 8)]
    engine.run()
    assert sum(engine.results[rid].last.retractions for rid in rids) >= 2
    twins.check(engine)


def test_without_the_prefix_cache(twins: Twins):
    engine = StepEngine(twins.module, chunk=7, share_prefixes=False)
    for prompt in [*RAGGED, *RAGGED]:
        engine.add(prompt)
    engine.run()
    assert all(result.last.cached_tokens == 0 for result in engine.results.values())
    assert engine.engine.scheduler.tree.size == 0
    twins.check(engine)


@pytest.mark.parametrize("order", ["fcfs", "lpm", "random"])
def test_in_every_order(qwen2: Twins, order: str):
    engine = StepEngine(qwen2.module, rows=2, order=order)
    stem, *branches = prompts(20, 3, 5, 4, 6)
    for prompt in [*RAGGED, *(stem + branch for branch in branches)]:
        engine.add(prompt)
    engine.run()
    qwen2.check(engine)


STEMS = prompts(1, 8, 23, 31)
PROMPTS = [stem[:cut] + tail for stem in STEMS for cut in (5, 31) for tail in prompts(1, 4)]
ACTIONS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(PROMPTS), st.integers(0, 24)),
    st.tuples(st.just("step"), st.integers(1, 9)),
    st.tuples(st.just("abort"), st.integers(0, 9)),
    st.tuples(st.just("flush")),
)


@examples(40)
@given(
    actions=st.lists(ACTIONS, min_size=8, max_size=30),
    slots=st.sampled_from([64, 96, 2048]),
    rows=st.sampled_from([1, 3, 16]),
    chunk=st.sampled_from([1, 5, 64]),
    order=st.sampled_from(["lpm", "fcfs", "random"]),
    share=st.booleans(),
)
def test_random_traffic(qwen2: Twins, actions, slots, rows, chunk, order, share):
    engine = StepEngine(
        qwen2.module, slots=slots, rows=rows, chunk=chunk, order=order, share_prefixes=share, conservativeness=0.0
    )
    for name, *arguments in actions:
        rids = list(engine.results)
        if name == "add":
            engine.add(arguments[0], max_new_tokens=arguments[1])
        elif name == "step":
            engine.steps(arguments[0])
        elif name == "abort" and rids:
            engine.abort(rids[arguments[0] % len(rids)])
        elif name == "flush":
            engine.engine.flush_cache()
    engine.run()
    qwen2.check(engine)
    assert engine.engine.scheduler.flush()
    assert engine.engine.scheduler.pool.free_count == slots
