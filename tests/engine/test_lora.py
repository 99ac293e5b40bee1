"""A request with an adapter gets the greedy tokens of a model into which the adapter was merged, whoever runs beside it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from kernel_engine.errors import LoadError, RequestError
from kernel_engine.fuse import CpuLinear, fuse
from kernel_engine.lora import CONFIG, WEIGHTS, Adapter, LoraLinear, attach, read_adapter, read_adapters
from kernel_engine.protocol import read_generate
from kernel_engine.request import LogprobRequest
from kernel_engine.server_args import ServerArgs

from .support import VOCAB, Oracle, StepEngine, byte_tokenizer, random_module

ATTENTION = ("self_attn.q_proj", "self_attn.v_proj")
EVERY = (*ATTENTION, "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
ADAPTERS: dict[str, dict[str, Any]] = {
    "narrow": {"targets": ATTENTION, "r": 4, "lora_alpha": 8},
    "wide": {
        "targets": EVERY,
        "r": 6,
        "lora_alpha": 6,
        "use_rslora": True,
        "alpha_pattern": {"layers.1.mlp.up_proj": 24},
    },
}


def layer_names(targets: tuple[str, ...]) -> list[str]:
    return [f"model.layers.{layer}.{target}" for layer in range(3) for target in targets]


def save_adapter(
    folder: Path, module: PreTrainedModel, *, targets: tuple[str, ...] = ATTENTION, seed: int = 0, **config: Any
) -> dict[str, tuple[Tensor, Tensor]]:
    """Write an adapter as PEFT does, and return its matrices by the layer's name."""
    rng = torch.Generator().manual_seed(seed)
    rank = config.get("r", 4)
    pairs = {}
    for name in layer_names(targets):
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        pairs[name] = (
            torch.randn(rank, layer.in_features, generator=rng) * 0.3,
            torch.randn(layer.out_features, rank, generator=rng) * 0.3,
        )
    tensors = {
        f"base_model.model.{name}.lora_{side}.weight": tensor
        for name, pair in pairs.items()
        for side, tensor in zip("AB", pair, strict=True)
    }
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    defaults = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": list(targets), "bias": "none"}
    (folder / CONFIG).write_text(json.dumps(defaults | config))
    return pairs


def merged(pairs: dict[str, tuple[Tensor, Tensor]], **config: Any) -> PreTrainedModel:
    """The model that the adapter stands for: W + alpha / r B A, or alpha / sqrt(r) with rslora."""
    module = random_module()
    for name, (down, up) in pairs.items():
        alpha = next(
            (a for key, a in config.get("alpha_pattern", {}).items() if name.endswith(key)), config["lora_alpha"]
        )
        scale = alpha / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
        module.get_submodule(name).weight.data += scale * up @ down
    return module


class Zoo:
    """A model with both adapters, and for each of them, and for none, what transformers says."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.oracles: dict[str | None, Oracle] = {None: Oracle(random_module())}
        for seed, (name, options) in enumerate(ADAPTERS.items()):
            config = {key: value for key, value in options.items() if key != "targets"}
            pairs = save_adapter(folder / name, random_module(), targets=options["targets"], seed=seed, **config)
            self.oracles[name] = Oracle(merged(pairs, **config))

    def engine(self, **options: Any) -> StepEngine:
        module = random_module()
        adapters = attach(module, [read_adapter(name, self.folder / name) for name in ADAPTERS])
        return StepEngine(module, adapters=adapters, **options)

    def check(self, engine: StepEngine) -> None:
        for rid, result in engine.results.items():
            request = engine.requests[rid]
            wanted = self.oracles[request.lora_path].tokens(request.input_ids, request.params.max_new_tokens or 0)
            assert result.tokens == wanted, (rid, request.lora_path)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("adapters"))


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(VOCAB), k=length)


def test_the_adapters_make_a_difference(zoo: Zoo):
    texts = [oracle.tokens(prompt(20), 16) for oracle in zoo.oracles.values()]
    assert texts[0] != texts[1] != texts[2] != texts[0]


@pytest.mark.parametrize("name", [None, *ADAPTERS])
def test_alone(zoo: Zoo, name: str | None):
    engine = zoo.engine()
    for length in (1, 3, 40, 17):
        engine.generate(prompt(length, seed=length), lora_path=name)
    zoo.check(engine)


@pytest.mark.parametrize("policy", [{}, {"chunk": 7}, {"drafted": 4}])
def test_the_model_and_both_adapters_in_one_batch(zoo: Zoo, policy: dict[str, int]):
    engine = zoo.engine(**policy)
    for index, length in enumerate((20, 3, 31, 1, 17, 20, 9)):
        engine.add(prompt(length, seed=length), lora_path=[None, *ADAPTERS][index % 3])
    engine.run()
    zoo.check(engine)


def test_arriving_while_others_decode(zoo: Zoo):
    engine = zoo.engine(chunk=16)
    for index, length in enumerate((12, 25, 6, 30)):
        engine.add(prompt(length, seed=length), lora_path=["wide", None, "narrow"][index % 3])
        engine.steps(3)
    engine.run()
    zoo.check(engine)


def test_a_prefix_is_shared_with_the_same_adapter_only(zoo: Zoo):
    engine = zoo.engine()
    names = [None, *ADAPTERS]
    first = [engine.generate(prompt(30), lora_path=name).last.cached_tokens for name in names]
    again = [engine.generate(prompt(30) + prompt(5), lora_path=name).last.cached_tokens for name in names]
    assert first == [0, 0, 0]
    assert again == [30, 30, 30]
    zoo.check(engine)


def test_a_prefix_on_its_way_is_waited_for_with_the_same_adapter_only(zoo: Zoo):
    engine = zoo.engine(chunk=64)
    rids = [engine.add(prompt(40) + prompt(3, seed), lora_path=name) for seed in (1, 2) for name in ("narrow", None)]
    engine.run()
    assert [engine.results[rid].last.cached_tokens for rid in rids] == [0, 0, 40, 40]
    zoo.check(engine)


def test_a_pool_so_small_that_requests_are_retracted(zoo: Zoo):
    engine = zoo.engine(slots=64, conservativeness=0.0)
    rids = [
        engine.add(prompt(length, seed=length), lora_path=name, max_new_tokens=28)
        for length, name in ((9, None), (12, "wide"), (5, "narrow"), (10, "wide"), (8, None))
    ]
    engine.run()
    assert sum(engine.results[rid].last.retractions for rid in rids) >= 2
    zoo.check(engine)


def test_no_more_adapters_are_at_work_than_allowed(zoo: Zoo):
    engine = zoo.engine(adapters_at_once=1)
    for name in ("narrow", "wide", None, "narrow"):
        engine.add(prompt(8), lora_path=name, max_new_tokens=4)
    at_work = set()
    for _ in range(12):
        engine.step()
        at_work.add(frozenset(s.adapter for s in engine.engine.scheduler.running if s.adapter))
    engine.run()
    assert at_work == {frozenset(), frozenset({1}), frozenset({2})}
    zoo.check(engine)


def test_an_unknown_name_is_refused_with_the_known_ones(zoo: Zoo):
    with pytest.raises(RequestError, match="'other' is not known: the adapters here are narrow, wide"):
        zoo.engine().add([1], lora_path="other")
    with pytest.raises(RequestError, match="this server has no adapters"):
        StepEngine(random_module()).add([1], lora_path="other")


def test_log_probabilities_are_the_adapted_models(zoo: Zoo):
    engine, tokens = zoo.engine(), prompt(20)
    logprobs = LogprobRequest(start=0)
    rids = {name: engine.add(tokens, lora_path=name, logprobs=logprobs, max_new_tokens=1) for name in zoo.oracles}
    engine.run()
    for name, rid in rids.items():
        found = [entry.logprob for entry in engine.results[rid].last.input_logprobs[1:]]
        wanted = zoo.oracles[name].logprobs(tokens)[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found), wanted, rtol=1e-4, atol=1e-4)


# -- from the command line ---------------------------------------------------------------------------------------------


def test_adapters_have_the_names_that_the_flag_gives(zoo: Zoo):
    paths = (f"first={zoo.folder / 'wide'}", str(zoo.folder / "narrow"))
    assert [a.name for a in read_adapters(ServerArgs(model_path="m", lora_paths=paths))] == ["first", "narrow"]
    assert read_adapters(ServerArgs(model_path="m")) == []


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("a={0}/narrow", "a={0}/wide"), "gives the name 'a' twice"),
        (("={0}/narrow",), "takes NAME=PATH or PATH"),
        (("a={0}/nowhere",), "is not a folder"),
        (("a={0}",), f"there is no {CONFIG}"),
    ],
)
def test_a_wrong_flag_is_refused(zoo: Zoo, paths: tuple[str, ...], message: str):
    with pytest.raises(LoadError, match=message):
        read_adapters(ServerArgs(model_path="m", lora_paths=tuple(path.format(zoo.folder) for path in paths)))


# -- adapters that would be computed wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "not a LoRA adapter"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "adds biases"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed base weights"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, config: dict[str, Any], message: str):
    save_adapter(tmp_path, random_module(), **config)
    with pytest.raises(LoadError, match=message):
        read_adapter("a", tmp_path)


def test_tensors_that_are_no_linear_layers_are_refused(tmp_path: Path):
    save_adapter(tmp_path, random_module())
    save_file({"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(4, 9)}, tmp_path / WEIGHTS)
    with pytest.raises(LoadError, match="no part of a linear layer"):
        read_adapter("a", tmp_path)


def test_half_a_pair_is_refused(tmp_path: Path):
    save_adapter(tmp_path, random_module())
    save_file({"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(4, 64)}, tmp_path / WEIGHTS)
    with pytest.raises(LoadError, match="lacks one of its two matrices"):
        read_adapter("a", tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path):
    save_adapter(tmp_path, random_module())
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(LoadError, match="cannot be read"):
        read_adapter("a", tmp_path)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        ("model.layers.7.mlp.up_proj", (64, 96), "this one has no"),
        ("model.layers.0.mlp.up_proj", (32, 96), "its model.layers.0.mlp.up_proj is 32 by 96, the model's 64 by 96"),
        ("model.layers.0.input_layernorm", (64, 64), "not a Linear"),
        ("lm_head", (64, VOCAB), "makes the logits"),
    ],
)
def test_an_adapter_for_another_model_is_refused(layer: str, shape: tuple[int, int], message: str):
    adapter = Adapter("a", {layer: (torch.zeros(4, shape[0]), torch.zeros(shape[1], 4))})
    with pytest.raises(LoadError, match=message):
        attach(random_module(), [adapter])


# -- with the faster layers of a CPU -----------------------------------------------------------------------------------


def test_layers_under_adapters_are_fused_too(zoo: Zoo):
    module = random_module().bfloat16()
    adapters = attach(module, [read_adapter("wide", zoo.folder / "wide")])
    fuse(module)
    layer = module.get_submodule("model.layers.1.mlp.up_proj")
    assert isinstance(layer, LoraLinear)
    assert isinstance(layer.base, CpuLinear)
    assert all(isinstance(part, CpuLinear) for part in layer.added["1"].children())
    assert StepEngine(module, adapters=adapters).generate(prompt(9), lora_path="wide").finish["type"] == "length"


# -- over HTTP ---------------------------------------------------------------------------------------------------------


def test_each_prompt_of_a_body_may_name_its_own_adapter():
    body = {"text": ["a", "b"], "lora_path": ["first", None]}
    assert [r.lora_path for r in read_generate(body, byte_tokenizer(), 1).requests] == ["first", None]
    assert read_generate({"text": "a", "lora_path": "first"}, byte_tokenizer(), 1).requests[0].lora_path == "first"
    with pytest.raises(RequestError, match="lora_path must be a string"):
        read_generate({"text": "a", "lora_path": 3}, byte_tokenizer(), 1)
