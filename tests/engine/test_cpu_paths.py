"""How a CPU computes a batch fast must not change what it computes."""

from __future__ import annotations

import random
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from torch import nn

from kernel_engine.batch import SHORT, build_batch
from kernel_engine.engine import Engine, EngineSettings
from kernel_engine.fuse import PACKED_ROWS, CpuLinear, fuse
from kernel_engine.model import Model
from kernel_engine.plan import Segment
from kernel_engine.pool import Rows
from kernel_engine.request import Request, Sequence
from kernel_engine.sampling_params import SamplingParams
from kernel_engine.schedule import Policy
from kernel_engine.threads import compute_with
from kernel_engine.vision.prompt import Prompt

from .support import Oracle, StepEngine, byte_tokenizer, random_module


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 16, PACKED_ROWS, PACKED_ROWS + 1])
def test_a_fused_linear_layer_is_as_exact_as_the_one_it_replaces(rows: int, packed: bool, bias: bool):
    torch.manual_seed(0)
    plain = nn.Linear(96, 160, bias=bias, dtype=torch.bfloat16)
    inputs = torch.randn(1, rows, 96, dtype=torch.bfloat16)
    with torch.inference_mode():
        exact = nn.functional.linear(
            inputs.double(), plain.weight.double(), None if plain.bias is None else plain.bias.double()
        )
        fused = CpuLinear(plain, packed=packed)(inputs)
    assert fused.shape == exact.shape
    assert fused.dtype == torch.bfloat16
    # One rounding to bf16 of a sum that was kept in fp32.
    torch.testing.assert_close(fused.double(), exact, rtol=2**-8, atol=1e-5)


def test_fusing_replaces_bf16_layers_only_and_keeps_tied_weights_tied():
    half, full = random_module(tie_word_embeddings=True).bfloat16(), random_module()
    fuse(half)
    fuse(full)
    assert isinstance(half.lm_head, CpuLinear)
    assert half.lm_head.weight is half.get_input_embeddings().weight
    assert not any(isinstance(layer, CpuLinear) for layer in full.modules())


def test_onednn_is_left_as_it_was_found():
    layer = CpuLinear(nn.Linear(8, 8, dtype=torch.bfloat16), packed=False)
    for enabled in (True, False):
        with torch.backends.mkldnn.flags(enabled=enabled):
            layer(torch.zeros(1, 8, dtype=torch.bfloat16))
            assert torch.backends.mkldnn.enabled == enabled


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_fused_model_gives_the_tokens_of_the_unfused_one(family: str):
    prompt = random.Random(0).choices(range(256), k=40)
    plain, fused = StepEngine(random_module(family)), StepEngine(random_module(family).bfloat16())
    logits = []
    for engine in (plain, fused):
        engine.add(prompt, max_new_tokens=8, ignore_eos=True)
        forward = engine.engine.model.forward
        engine.engine.model.forward = lambda batch, cache, forward=forward: (
            logits.append(forward(batch, cache)) or logits[-1]
        )
        engine.step()
    exact, rounded = (values[0].log_softmax(-1) for values in logits)
    assert (exact - rounded).abs().max() < 0.5


def decoding(row: int, length: int) -> Segment:
    request = Request(rid=str(row), prompt=Prompt([7] * (length + 1)), params=SamplingParams())
    sequence = Sequence(request, max_new_tokens=4, seed=0, text=None, matcher=None)  # pyright: ignore[reportArgumentType]
    sequence.row = row
    return Segment(sequence, length, 1)


def test_one_long_context_does_not_pad_the_short_ones():
    rows = Rows(6, 9000)
    rows.table[:] = 1 + torch.arange(6 * 9000).view(6, 9000).numpy()
    lengths = [8000, 3, SHORT - 1, 40, 300, 7000]
    batch = build_batch([decoding(i, n) for i, n in enumerate(lengths)], rows, torch.device("cpu"))
    decodes = batch.views[None].decodes
    assert [(d.begin, d.end, d.slots.shape[1]) for d in decodes] == [(0, 3, SHORT), (3, 4, 301), (4, 6, 8001)]
    for group in decodes:
        for token, slots, mask in zip(range(group.begin, group.end), group.slots, group.mask, strict=True):
            sequence = batch.segments[token].sequence
            length = batch.segments[token].start + 1
            assert slots[:length].tolist() == rows.table[sequence.row, :length].tolist()
            assert mask.flatten().tolist() == [True] * length + [False] * (len(slots) - length)


def test_contexts_of_every_length_class_decode_together_exactly():
    rng = random.Random(1)
    module = random_module(max_position_embeddings=2048)
    oracle = Oracle(random_module(max_position_embeddings=2048))
    prompts = [[rng.randrange(256) for _ in range(n)] for n in (900, 4, 300, 257, 30, 1100)]
    engine = StepEngine(module, slots=8192)
    rids = [engine.add(prompt, max_new_tokens=6, ignore_eos=False) for prompt in prompts]
    engine.run()
    assert [engine.results[rid].tokens for rid in rids] == [oracle.tokens(prompt, 6) for prompt in prompts]


def test_a_window_gathers_no_more_than_it_sees():
    rows = Rows(3, 400)
    rows.table[:] = 1 + torch.arange(3 * 400).view(3, 400).numpy()
    lengths = [5, 9, 200]
    batch = build_batch(
        [decoding(i, n) for i, n in enumerate(lengths)], rows, torch.device("cpu"), windows=[8, None, 300]
    )
    (group,) = batch.views[8].decodes
    assert group.slots.shape == (3, 8)
    for row, (length, slots, mask) in enumerate(zip(lengths, group.slots, group.mask.flatten(1), strict=True)):
        seen = rows.table[row, max(0, length + 1 - 8) : length + 1].tolist()
        assert slots[mask].tolist() == seen
        assert slots[~mask].eq(0).all()
    assert batch.views[300] is batch.views[None]


def test_the_engines_thread_alone_has_a_team():
    """A second team of threads would halve the rate of the first."""
    settings = EngineSettings(slots=64, rows=1, policy=Policy(chunk=64, max_prefill=64), seed=0, threads=3)
    engine = Engine(Model(random_module(), byte_tokenizer()), settings, deliver=lambda outputs: None)
    compute_with(3)
    engine.start()
    found: Future[int] = Future()
    engine._inbox.put(lambda: found.set_result(torch.get_num_threads()))
    with ThreadPoolExecutor(1) as other:
        assert [found.result(), torch.get_num_threads(), other.submit(torch.get_num_threads).result()] == [3, 1, 1]
    engine.close()
