"""The models people use: each family's greedy tokens are those of `transformers.generate` in fp32, however they are computed."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

from .support import EOS, VOCAB, Oracle, StepEngine

WINDOW = 8
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": EOS, "pad_token_id": None,
    "initializer_range": 0.3,
}  # fmt: skip
GROUPED: dict[str, Any] = SHAPE | {"num_key_value_heads": 2}
HEADS: dict[str, Any] = GROUPED | {"head_dim": 24}
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 10000.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip

FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "llama with llama3's rope": LlamaConfig(
        **GROUPED,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral": MistralConfig(**HEADS, sliding_window=None),
    "mistral with a window": MistralConfig(**GROUPED, sliding_window=WINDOW),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen2 with windows": Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2),
    "qwen3": Qwen3Config(**HEADS),
    "qwen3-moe": Qwen3MoeConfig(**HEADS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32),
    "gemma2": Gemma2Config(
        **HEADS, sliding_window=WINDOW, query_pre_attn_scalar=20, attn_logit_softcapping=2.0, final_logit_softcapping=5.0
    ),
    "gemma3": Gemma3TextConfig(**HEADS, sliding_window=WINDOW, sliding_window_pattern=2),
    "gemma3 that sees": Gemma3Config(
        text_config=Gemma3TextConfig(**HEADS, sliding_window=WINDOW, sliding_window_pattern=2).to_dict(),
        vision_config={"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        eos_token_id=EOS,
    ),
    "phi3": Phi3Config(**GROUPED, sliding_window=None),
    "phi3 with a window": Phi3Config(**GROUPED, sliding_window=WINDOW),
    "phi3 with longrope": Phi3Config(**GROUPED, rope_parameters=LONGROPE, original_max_position_embeddings=128),
    "smollm3": SmolLM3Config(**GROUPED, no_rope_layer_interval=2),
    "olmo2": Olmo2Config(**GROUPED),
    "gpt-neox": GPTNeoXConfig(**SHAPE, rotary_pct=0.25),
    "granite": GraniteConfig(
        **GROUPED, embedding_multiplier=3.0, attention_multiplier=0.2, residual_multiplier=0.5, logits_scaling=2.0
    ),
}  # fmt: skip
WINDOWS = {
    "mistral with a window": [WINDOW],
    "qwen2 with windows": [None, WINDOW],
    "gemma2": [WINDOW, None],
    "gemma3": [WINDOW, None],
    "gemma3 that sees": [WINDOW, None],
    "phi3 with a window": [WINDOW],
}


class ShortOracle(Oracle):
    LONGEST = 20


def module_of(config: PretrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def module(family: str) -> PreTrainedModel:
    return module_of(FAMILIES[family])


@pytest.fixture(scope="module")
def oracle(family: str) -> Oracle:
    return ShortOracle(module_of(FAMILIES[family]))


def check(engine: StepEngine, oracle: Oracle) -> None:
    for rid, result in engine.results.items():
        request = engine.requests[rid]
        assert result.tokens == oracle.tokens(request.input_ids, request.params.max_new_tokens or 0), rid


def prompts(*lengths: int) -> list[list[int]]:
    rng = random.Random(2)
    return [[rng.randrange(VOCAB) for _ in range(length)] for length in lengths]


SHORT = prompts(9, 12, 5, 10)
LONG, STEM = prompts(6 * WINDOW, 3 * WINDOW)
FORKED = [STEM + tail for tail in prompts(2, 9)]


def test_alone_then_from_the_cache(module: PreTrainedModel, oracle: Oracle):
    """The second request begins in the middle of the first's context, which is longer than any window."""
    engine = StepEngine(module)
    engine.generate(LONG, max_new_tokens=20)
    again = engine.generate([*LONG[: 5 * WINDOW], 7, 8, 9], max_new_tokens=20)
    assert again.last.cached_tokens == 5 * WINDOW
    check(engine, oracle)


@pytest.mark.parametrize("chunk", [512, 7])
def test_in_a_mixed_batch(module: PreTrainedModel, oracle: Oracle, chunk: int):
    """Prompts of many lengths, some with a common prefix, come in while others decode."""
    engine = StepEngine(module, chunk=chunk)
    for prompt in (SHORT[0], LONG, *FORKED):
        engine.add(prompt, max_new_tokens=20)
        engine.step()
    engine.run()
    assert max(result.last.cached_tokens for result in engine.results.values()) >= len(STEM)
    check(engine, oracle)


def test_with_each_token_as_a_query_of_its_own(module: PreTrainedModel, oracle: Oracle):
    """The layout of short steps on a GPU, computed without its kernel."""
    engine = StepEngine(module, chunk=7)
    engine.engine.model.query_tokens = 32
    for prompt in (SHORT[0], LONG, *FORKED):
        engine.add(prompt, max_new_tokens=20)
        engine.step()
    engine.run()
    check(engine, oracle)


def test_after_retraction(module: PreTrainedModel, oracle: Oracle):
    engine = StepEngine(module, slots=48, conservativeness=0.0)
    for prompt in SHORT:
        engine.add(prompt, max_new_tokens=20, ignore_eos=True)
    engine.run()
    assert sum(result.last.retractions for result in engine.results.values()) >= 1
    for rid, result in engine.results.items():
        wanted = oracle.tokens(engine.requests[rid].input_ids, 20)
        assert result.tokens[: len(wanted)] == wanted


def test_the_windows_are_what_the_layers_ask_for(family: str, module: PreTrainedModel):
    assert StepEngine(module).engine.model.windows == WINDOWS.get(family, [None])


def test_a_window_matters():
    """What the tests above compare would differ if a window were ignored."""
    narrow, wide = (MistralConfig(**GROUPED, sliding_window=window) for window in (WINDOW, None))
    oracles = [ShortOracle(module_of(config)) for config in (narrow, wide)]
    assert oracles[0].tokens(LONG, 20) != oracles[1].tokens(LONG, 20)


def test_longrope_ends_the_context_where_its_factors_change():
    """Beyond, transformers would turn the keys of short texts otherwise when a long one is in the batch."""
    engine = StepEngine(module_of(FAMILIES["phi3 with longrope"]))
    assert engine.engine.context == LONGROPE["original_max_position_embeddings"]
