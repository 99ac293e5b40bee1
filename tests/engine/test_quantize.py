"""Quantized weights are close to the plain ones, are multiplied exactly, and leave a model's perplexity as it was."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config

from kernel_engine.errors import LoadError
from kernel_engine.loading import load_model
from kernel_engine.lora import Adapter, attach
from kernel_engine.quantize import (
    FEW_ROWS,
    MANY_ROWS,
    SCHEMES,
    Int4Linear,
    Int8Linear,
    Scheme,
    quantize,
    scheme_of,
    to_int4,
    to_int8,
)
from kernel_engine.request import LogprobRequest
from kernel_engine.server_args import ServerArgs
from training.corpus import KINDS, system_prompt
from training.dialogue import encode_merged, render
from training.kinds.memory import Memory

from .support import StepEngine, random_module

ROUNDING = 2**-8
"""Of a number in bf16, relative."""


def flags(**values: str) -> ServerArgs:
    return ServerArgs(model_path="tiny-chat", **values)


# -- layers ------------------------------------------------------------------------------------------------------------


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias, dtype=torch.bfloat16)


def test_int8_weights_are_within_half_a_step():
    weight = linear(96, 160).weight.detach()
    rounded, scale = to_int8(weight)
    assert rounded.abs().amax(1).tolist() == [127] * 160
    error = (rounded * scale.float()[:, None] - weight.float()).abs()
    assert (error <= scale.float()[:, None] * (0.5 + 127 * ROUNDING)).all()


@pytest.mark.parametrize("group", [32, 64])
def test_int4_weights_are_within_half_a_step(group: int):
    weight = linear(128, 160).weight.detach()
    rounded, scales = to_int4(weight, group)
    scale, offset = (part.float().t().repeat_interleave(group, 1) for part in scales.unbind(2))
    error = ((rounded.float() - 8) * scale + offset - weight.float()).abs()
    assert (error <= scale * (0.5 + 16 * ROUNDING)).all()
    assert set(rounded.unique().tolist()) == set(range(16))


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_weights_that_are_all_the_same_stay_what_they_are(value: float):
    layer = linear(64, 16)
    layer.weight.data.fill_(value)
    ones = torch.ones(1, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        wanted = layer(ones)
        for quantized in (Int8Linear(layer), Int4Linear(layer, 32)):
            torch.testing.assert_close(quantized(ones), wanted, rtol=2 * ROUNDING, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, FEW_ROWS, FEW_ROWS + 1, MANY_ROWS - 1, MANY_ROWS])
@pytest.mark.parametrize("outputs", [160, 192])
@pytest.mark.parametrize("scheme", [Scheme(8), Scheme(4, 32), Scheme(4, 128)])
def test_a_product_is_that_of_the_rounded_weights(scheme: Scheme, rows: int, outputs: int, bias: bool):
    layer = linear(256, outputs, bias=bias)
    inputs = torch.randn(1, rows, 256, dtype=torch.bfloat16)
    with torch.inference_mode():
        if scheme.bits == 8:
            rounded, scale = to_int8(layer.weight)
            weight, quantized = rounded * scale.float()[:, None], Int8Linear(layer)
        else:
            rounded, scales = to_int4(layer.weight, scheme.group)
            scale, offset = (part.float().t().repeat_interleave(scheme.group, 1) for part in scales.unbind(2))
            weight, quantized = (rounded.float() - 8) * scale + offset, Int4Linear(layer, scheme.group)
        product = inputs.double() @ weight.double().t()
        exact = product if layer.bias is None else product + layer.bias.double()
        found = quantized(inputs)
    assert found.shape == (1, rows, outputs)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=3 * ROUNDING, atol=3 * ROUNDING * float(product.std()))


@pytest.mark.parametrize("shape", [(40, 7), (24, 100), (1, 1)])
def test_a_shape_that_the_int8_kernel_cannot_take_is_computed_all_the_same(shape: tuple[int, int]):
    layer = linear(*shape)
    inputs = torch.randn(2, shape[0], dtype=torch.bfloat16)
    with torch.inference_mode():
        torch.testing.assert_close(Int8Linear(layer)(inputs), layer(inputs), rtol=0.05, atol=0.05)


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layer"), [("int8", Int8Linear), ("int4", Int4Linear)])
def test_every_linear_layer_but_the_head_is_quantized_and_the_plain_weights_are_gone(name: str, layer: type):
    module = random_module(tie_word_embeddings=True).bfloat16()
    quantize(module, SCHEMES[name])
    blocks = [child for child in module.modules() if isinstance(child, layer)]
    assert len(blocks) == 3 * 7
    assert module.lm_head.weight is module.get_input_embeddings().weight
    matrices = {id(p) for n, p in module.named_parameters() if p.dim() == 2}
    assert matrices == {id(module.get_input_embeddings().weight)}


def test_a_layer_that_no_group_fits_stays_as_it_is_and_is_logged(caplog: pytest.LogCaptureFixture):
    module = random_module(intermediate_size=72).bfloat16()
    with caplog.at_level(logging.WARNING, "kernel_engine"):
        quantize(module, SCHEMES["int4"])
    assert "Layers of 64 by 72, 72 by 64 stay as they are" in caplog.text
    assert type(module.get_submodule("model.layers.0.mlp.up_proj")) is nn.Linear
    assert isinstance(module.get_submodule("model.layers.0.self_attn.q_proj"), Int4Linear)
    assert StepEngine(module).generate([1, 2, 3]).finish["type"] in ("length", "stop")


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_adapters_are_added_to_quantized_layers(name: str):
    module = random_module().bfloat16()
    quantize(module, SCHEMES[name])
    layer, pair = "model.layers.0.mlp.up_proj", (torch.randn(4, 64), torch.randn(96, 4))
    base = module.get_submodule(layer)
    adapters = attach(module, [Adapter("a", {layer: pair})])
    adapters.groups = [(1, torch.tensor([0, 2]))]
    inputs = torch.randn(1, 3, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        added = module.get_submodule(layer)(inputs) - base(inputs)
    wanted = inputs.float() @ pair[0].t() @ pair[1].t()
    wanted[:, 1] = 0
    torch.testing.assert_close(added.float(), wanted, rtol=0.05, atol=0.3)


def test_a_model_without_linear_layers_is_refused():
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 16}
    module = AutoModelForCausalLM.from_config(GPT2Config(**shape))
    with pytest.raises(LoadError, match="GPT2LMHeadModel has no linear layers"):
        quantize(module, SCHEMES["int8"])


# -- tiny-chat ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dialogue:
    ids: list[int]
    answered: list[bool]
    """Which tokens are the model's to write."""


def dialogues(each: int) -> Iterator[Dialogue]:
    """`each` dialogues of every kind, in wordings that were kept out of the model's training."""
    tokenizer = load_model(flags(load_format="dummy")).tokenizer.backend_tokenizer
    rng = Random(101)
    for kind, _ in KINDS.values():
        for _ in range(each):
            messages = [*system_prompt(rng, "held_out"), *kind(rng, "held_out", Memory())]
            yield Dialogue(*encode_merged(tokenizer, render(messages)))


@pytest.fixture(scope="module")
def texts() -> list[Dialogue]:
    return list(dialogues(each=2))


def surprise(texts: list[Dialogue], args: ServerArgs, chunk: int) -> float:
    """The mean negative log-probability of what the model is to write; the perplexity's logarithm."""
    engine = StepEngine(load_model(args).module, slots=4096, chunk=chunk)
    rids = [engine.add(text.ids, logprobs=LogprobRequest(start=0), max_new_tokens=0) for text in texts]
    engine.run()
    found = [
        entry.logprob
        for text, rid in zip(texts, rids, strict=True)
        for entry, answered in zip(engine.results[rid].last.input_logprobs, text.answered, strict=True)
        if answered and entry.logprob is not None
    ]
    return -sum(found) / len(found)


@pytest.fixture(scope="module")
def plain(texts: list[Dialogue]) -> float:
    return surprise(texts, flags(dtype="bfloat16"), chunk=512)


@pytest.mark.parametrize("chunk", [512, FEW_ROWS])
@pytest.mark.parametrize(("name", "limit"), [("int8", 1.01), ("int4", 1.05)])
def test_perplexity(texts: list[Dialogue], plain: float, name: str, limit: float, chunk: int):
    found = surprise(texts, flags(quantization=name), chunk)
    assert math.exp(found - plain) < limit
    # tiny-chat is so sure of what it writes that its perplexity is near 1 whatever happens; its surprise is not.
    assert found < plain * (1.05 if name == "int8" else 1.2)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_quantized_model_answers_and_is_smaller(name: str):
    model, full = load_model(flags(quantization=name)), load_model(flags(dtype="bfloat16"))
    assert model.dtype == torch.bfloat16
    assert model.weight_bytes < full.weight_bytes * {"int8": 0.65, "int4": 0.55}[name]
    ids = model.tokenizer("The capital of France is")["input_ids"]
    tokens = StepEngine(model.module).generate(ids).tokens
    assert model.tokenizer.decode(tokens).startswith(" Paris")


# -- flags -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ({}, None),
        ({"quantization": "int8"}, Scheme(8)),
        ({"quantization": "int4"}, Scheme(4, 32)),
        ({"torchao_config": "int8wo"}, Scheme(8)),
        ({"torchao_config": "int4wo-128"}, Scheme(4, 128)),
        ({"quantization": "int8", "torchao_config": "int8wo", "dtype": "bfloat16"}, Scheme(8)),
    ],
)
def test_the_flags_name_a_scheme(values: dict[str, str], scheme: Scheme | None):
    assert scheme_of(flags(**values)) == scheme


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quantization": "awq"}, "--quantization awq is not supported"),
        ({"torchao_config": "fp8wo"}, "--torchao-config fp8wo is not supported"),
        ({"quantization": "int8", "torchao_config": "int4wo-32"}, "cannot both be had"),
        ({"quantization": "int8", "dtype": "float32"}, "leave out --dtype float32"),
    ],
)
def test_what_is_not_done_is_refused(values: dict[str, str], message: str):
    with pytest.raises(LoadError, match=message):
        scheme_of(flags(**values))
