"""Steps on the tensors that CUDA graphs replay. Without a GPU nothing is recorded: the same steps are computed anew each time, on
the same tensors with the same padding, so that all but the recording itself is the product's."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, PreTrainedModel

from kernel_engine import graphs
from kernel_engine.graphs import Graphs, GraphSettings

from .support import EOS, VOCAB, Oracle, StepEngine, random_module

SIZES = (1, 2, 4, 8, 24)


@pytest.fixture(autouse=True)
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setattr(graphs, "record", lambda steps: steps)


def graphed(
    module: PreTrainedModel, sizes: tuple[int, ...] = SIZES, padding: bool = True, **options: Any
) -> StepEngine:
    """An engine that computes steps of up to 24 tokens as queries, on graphs of `sizes`."""
    engine = StepEngine(module, **options)
    inner = engine.engine
    inner.model.query_tokens = 24
    cache = inner.model.new_cache(inner.settings.slots)
    inner._graphs = Graphs(inner.model, cache, inner.context, GraphSettings(sizes, padding))
    return engine


def windowed() -> PreTrainedModel:
    """Gemma 2: a window of 8 tokens in every other layer, capped scores."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=512, eos_token_id=EOS, initializer_range=0.3,
        sliding_window=8, attn_logit_softcapping=5.0, query_pre_attn_scalar=16,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def prompts(*lengths: int) -> list[list[int]]:
    rng = random.Random(2)
    return [[rng.randrange(VOCAB) for _ in range(length)] for length in lengths]


def check(engine: StepEngine, oracle: Oracle) -> None:
    for rid, result in engine.results.items():
        request = engine.requests[rid]
        assert result.tokens == oracle.tokens(request.input_ids, request.params.max_new_tokens or 0), rid


@pytest.mark.parametrize("make", [random_module, windowed])
@pytest.mark.parametrize("sizes", [(), SIZES])
def test_tokens_are_those_of_transformers(make: Any, sizes: tuple[int, ...]) -> None:
    """Prompts too long for a graph, short ones, chunks, prefix hits and decoding, in steps of every number of tokens."""
    oracle = Oracle(make())
    engine = graphed(make(), sizes, chunk=40)
    stem, *others = prompts(33, 3, 1, 20, 60)
    for prompt in [stem, *others]:
        engine.add(prompt, max_new_tokens=20)
        engine.steps(2)
    engine.run()
    for tail in prompts(2, 5, 1):
        engine.add(stem + tail, max_new_tokens=12)
    engine.run()
    check(engine, oracle)


def test_retraction_and_a_full_pool() -> None:
    oracle = Oracle(random_module())
    engine = graphed(random_module(), slots=64, conservativeness=0.0)
    rids = [engine.add(prompt, max_new_tokens=28) for prompt in prompts(9, 12, 5, 10, 8)]
    engine.run()
    assert any(engine.results[rid].last.retractions for rid in rids)
    check(engine, oracle)


def test_what_an_earlier_step_left_does_not_leak_into_padding() -> None:
    """A large step, then a small one in the same graph: the rows behind it must not write into sequences' slots."""
    oracle = Oracle(random_module())
    engine = graphed(random_module(), sizes=(24,))
    for prompt in prompts(20, 4):
        engine.add(prompt, max_new_tokens=24)
    engine.run()
    check(engine, oracle)


def test_without_padding_only_steps_of_a_recorded_size_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = graphed(random_module(), sizes=(2, 4), padding=False)
    replayed: list[int] = []
    replays = engine.engine._graphs._replays
    for size, replay in list(replays.items()):
        monkeypatch.setitem(replays, size, lambda size=size, replay=replay: (replayed.append(size), replay()))
    rids = [
        engine.add(prompt, max_new_tokens=count) for prompt, count in zip(prompts(30, 30, 30), (9, 9, 3), strict=True)
    ]
    engine.run()
    assert set(replayed) == {2}  # with three sequences none fits, then two are left
    assert [len(engine.results[rid].tokens) for rid in rids] == [9, 9, 3]


def test_a_model_that_cannot_be_recorded_runs_without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(steps: dict[int, Any]) -> dict[int, Any]:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "record", refuse)
    engine = graphed(random_module())
    for prompt in prompts(20, 4):
        engine.add(prompt)
    engine.run()
    check(engine, Oracle(random_module()))
