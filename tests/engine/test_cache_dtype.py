"""Keys and values may be kept in fewer bits than the model computes in."""

from __future__ import annotations

import random

import pytest
import torch

from kernel_engine.model import Model
from kernel_engine.pool import KVCache, gather
from kernel_engine.request import LogprobRequest

from .support import VOCAB, Oracle, StepEngine, byte_tokenizer, random_module

NARROW = [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_stored_is_rounded_and_cut_to_the_range(dtype: torch.dtype):
    cache = KVCache(2, 8, 2, 4, dtype, torch.device("cpu"))
    keys, values = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    keys[0, 0, :2] = torch.tensor([1e30, -1e30])
    slots = torch.tensor([5, 1, 8])
    stored_keys, stored_values = cache.store(1, slots, keys, values)
    limit = torch.finfo(dtype).max
    assert torch.equal(gather(stored_keys, slots, torch.float32), keys.clamp(-limit, limit).to(dtype).float())
    assert torch.equal(gather(stored_values, slots, torch.float32), values.to(dtype).float())
    assert gather(stored_keys, torch.tensor([2, 3]), torch.float32).eq(0).all()


@pytest.mark.parametrize("dtype", NARROW)
def test_it_takes_the_memory_of_its_dtype(dtype: torch.dtype):
    plain, narrow = (Model(random_module(), byte_tokenizer(), cache_dtype=d) for d in (None, dtype))
    assert narrow.kv_bytes_per_token * 4 == plain.kv_bytes_per_token * dtype.itemsize
    assert narrow.new_cache(16).keys.dtype == dtype


@pytest.mark.parametrize("dtype", NARROW)
def test_the_tokens_do_not_depend_on_the_batch(dtype: torch.dtype):
    """A token attends to what is stored, its own key included, so chunks, neighbours and cached prefixes change nothing."""
    rng = random.Random(3)
    stem = [rng.randrange(VOCAB) for _ in range(30)]
    prompts = [[rng.randrange(VOCAB) for _ in range(n)] for n in (1, 17)] + [[*stem, 1, 2], [*stem, 3]]
    outputs = []
    for chunk in (512, 7):
        engine = StepEngine(Model(random_module(), byte_tokenizer(), cache_dtype=dtype), chunk=chunk)
        rids = [engine.add(prompt, max_new_tokens=12, ignore_eos=True) for prompt in prompts]
        engine.run()
        rids += [engine.add(prompts[2], max_new_tokens=12, ignore_eos=True)]
        engine.run()
        outputs.append([engine.results[rid].tokens for rid in rids])
    assert outputs[0] == outputs[1]
    assert outputs[0][2] == outputs[0][4]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float8_e4m3fn, 0.2), (torch.float8_e5m2, 0.4)]
)
def test_the_distribution_stays_close(dtype: torch.dtype, tolerance: float):
    prompt = [random.Random(4).randrange(VOCAB) for _ in range(40)]
    module = random_module(initializer_range=0.1)
    engine = StepEngine(Model(module, byte_tokenizer(), cache_dtype=dtype))
    result = engine.generate(prompt, logprobs=LogprobRequest(start=0), max_new_tokens=1)
    found = torch.tensor([entry.logprob for entry in result.last.input_logprobs[1:]])
    exact = Oracle(random_module(initializer_range=0.1)).logprobs(prompt)
    exact = exact[torch.arange(len(prompt) - 1), torch.tensor(prompt[1:])]
    assert (found - exact).abs().max() < tolerance
    assert (found - exact).abs().max() > 0
