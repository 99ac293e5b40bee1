"""What a model path names is loaded whole, mapped where it can be, or refused with a sentence that says why."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, PreTrainedModel

from kernel_engine import loading, source
from kernel_engine.errors import LoadError
from kernel_engine.loading import load_model
from kernel_engine.model import Model
from kernel_engine.server_args import ServerArgs
from kernel_engine.source import bring, check_available

from .support import EOS, Oracle, StepEngine, byte_tokenizer, random_module

PROMPT = list(b"One day, a model was loaded.")


def load(path: Path, **flags: Any) -> Model:
    return load_model(ServerArgs(model_path=str(path), device="cpu", **flags))


def save(folder: Path, module: PreTrainedModel, shard: str = "1GB") -> Path:
    module.save_pretrained(folder, max_shard_size=shard)
    byte_tokenizer().save_pretrained(folder)
    return folder


def greedy(model: Model) -> list[int]:
    return StepEngine(model).generate(PROMPT).tokens


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "saved", random_module("qwen2"))


@pytest.fixture(scope="module")
def expected() -> list[int]:
    return Oracle(random_module("qwen2")).tokens(PROMPT, 16)


# -- whole ----------------------------------------------------------------------------------------------------------------


def test_shards_are_loaded_with_a_line_for_each(tmp_path: Path, expected: list[int], caplog: pytest.LogCaptureFixture):
    folder = save(tmp_path, random_module("qwen2"), shard="100KB")
    shards = len(list(folder.glob("*.safetensors")))
    assert shards > 2
    with caplog.at_level(logging.INFO, "kernel_engine"):
        assert greedy(load(folder)) == expected
    lines = [line for line in caplog.messages if line.startswith("Loading safetensors")]
    form = r"Loading safetensors checkpoint shards: +(\d+)% Completed \| (\d+)/(\d+) \[\d\d:\d\d<[\d:?]+, +[\d.?]+(s/it|it/s)\]"
    found = [re.fullmatch(form, line) for line in lines]
    assert [(int(m[2]), int(m[3])) for m in found if m] == [(done, shards) for done in range(shards + 1)]
    assert (found[0] and found[0][1], found[-1] and found[-1][1]) == ("0", "100")


def test_tied_embeddings_are_stored_once(tmp_path: Path):
    module = random_module("qwen2", tie_word_embeddings=True)
    folder = save(tmp_path, module)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load(folder)
    assert model.module.lm_head.weight.data_ptr() == model.module.model.embed_tokens.weight.data_ptr()
    assert greedy(model) == Oracle(module).tokens(PROMPT, 16)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel what is mapped")
def test_weights_are_mapped_not_copied(saved: Path):
    model = load(saved)
    weights = [p for p in model.module.parameters() if p.numel() > 1000]
    mapped = [
        range(*(int(end, 16) for end in line.split()[0].split("-")))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith("model.safetensors")
    ]
    assert weights
    assert all(any(weight.data_ptr() in area for area in mapped) for weight in weights)


def test_a_dtype_converts_them(saved: Path):
    assert {p.dtype for p in load(saved, dtype="bfloat16").module.parameters()} == {torch.bfloat16}


def test_the_generation_config_gives_stops_and_sampling_defaults(saved: Path):
    GenerationConfig(
        eos_token_id=[EOS, 300], do_sample=True, temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.05
    ).save_pretrained(saved)
    model = load(saved)
    assert model.stop_tokens == [EOS, 300]
    assert model.default_sampling == {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05}


def test_without_one_there_are_no_sampling_defaults(saved: Path):
    (saved / "generation_config.json").unlink(missing_ok=True)
    model = load(saved)
    assert (model.stop_tokens, model.default_sampling) == ([EOS], {})


def test_weights_that_the_config_does_not_ask_for_are_named(saved: Path, caplog: pytest.LogCaptureFixture):
    change_weights(saved, lambda weights: weights.update({"extra.weight": torch.ones(3)}))
    with caplog.at_level(logging.WARNING, "kernel_engine"):
        load(saved)
    assert "extra.weight" in caplog.text


# -- refused --------------------------------------------------------------------------------------------------------------


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


NORM, HEAD = "model.norm.weight", "lm_head.weight"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"there is no config\.json"),
    "a config that is no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "an unknown model type": (lambda f: change_config(f, model_type="unheard-of"), "'unheard-of', which transformers .* does not"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights in"),
    "pickled weights": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pytorch_model.bin is not read"
    ),
    "a file cut short": (lambda f: cut(f / "model.safetensors"), "model.safetensors is damaged or only partly downloaded"),
    "a file of zeros": (lambda f: (f / "model.safetensors").write_bytes(bytes(99)), "is damaged"),
    "a missing weight": (lambda f: change_weights(f, lambda w: w.pop(NORM)), f"lacks weights .*: {NORM}"),
    "a missing head": (lambda f: change_weights(f, lambda w: w.pop(HEAD)), f"lacks weights .*: {HEAD}"),
    "a weight of another shape": (
        lambda f: change_weights(f, lambda w: w.update({NORM: torch.ones(9)})), rf"{NORM} is \[9\], not \[64\]"
    ),
    "a larger config": (
        lambda f: change_config(f, num_hidden_layers=5, layer_types=["full_attention"] * 5),
        r"lacks weights .*layers\.3.*and \d+ more",
    ),
    "a config at odds with itself": (
        lambda f: change_config(f, num_hidden_layers=5), r"`num_hidden_layers` \(5\) must be equal"
    ),
    "a config of wrong types": (lambda f: change_config(f, vocab_size="many"), "vocab_size"),
    "quantized weights": (
        lambda f: change_config(f, quantization_config={"quant_method": "gptq", "bits": 4}), r"stored quantized \(gptq\)"
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer in .* Name one with --tokenizer-path"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_refused_with_a_sentence(name: str, saved: Path):
    damage, message = DAMAGES[name]
    damage(saved)
    with pytest.raises(LoadError, match=message) as error:
        load(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: next(f.glob("*-00002-*")).unlink(), r"1 of the \d+ files .* are missing .*model-00002-of-"),
        (lambda f: cut(next(f.glob("*-00002-*"))), "model-00002-of-.* is damaged"),
        (lambda f: (f / "model.safetensors.index.json").write_text("[]"), "index.json is damaged"),
    ],
)
def test_a_damaged_set_of_shards(damage: Callable[[Path], object], message: str, tmp_path: Path):
    folder = save(tmp_path, random_module("qwen2"), shard="100KB")
    damage(folder)
    with pytest.raises(LoadError, match=message):
        load(folder)


@pytest.mark.parametrize("load_format", ["auto", "dummy"])
def test_too_little_memory_is_found_out_before_loading(saved: Path, load_format: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(loading, "open_checkpoint", lambda folder: pytest.fail("weights were read"))
    with pytest.raises(LoadError, match=r"the weights need 0\.00 GB in torch\.float32, 0\.00 GB are free on the cpu"):
        load(saved, load_format=load_format)


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class HomemadeConfig(LlamaConfig):
    model_type = "homemade"

class HomemadeModel(LlamaForCausalLM):
    config_class = HomemadeConfig
"""


def test_code_that_comes_with_a_model_is_run_only_if_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    module = random_module("llama")
    save(tmp_path, module)
    (tmp_path / "homemade.py").write_text(CODE)
    auto = {"AutoConfig": "homemade.HomemadeConfig", "AutoModelForCausalLM": "homemade.HomemadeModel"}
    change_config(tmp_path, model_type="homemade", architectures=["HomemadeModel"], auto_map=auto)
    with pytest.raises(LoadError, match="set --trust-remote-code"):
        load(tmp_path)
    model = load(tmp_path, trust_remote_code=True)
    assert type(model.module).__name__ == "HomemadeModel"
    assert greedy(model) == Oracle(module).tokens(PROMPT, 16)


def test_a_longer_context_than_the_models_is_refused(saved: Path):
    with pytest.raises(LoadError, match="--context-length 513 is more than the model's 512"):
        load(saved, context_length=513)


# -- paths and hub ids ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with one model, org/known, and a hub that cannot be reached."""

    def unreachable() -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(source, "_reach_hub", unreachable)
    repository = tmp_path / "cache" / "models--org--known"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    save(repository / "snapshots" / "0123456789abcdef0123456789abcdef01234567", random_module("qwen2"))
    return tmp_path / "cache"


def test_a_hub_id_is_taken_from_the_cache_without_the_hub(cache: Path, expected: list[int]):
    assert greedy(load(Path("org/known"), download_dir=str(cache))) == expected


def test_a_hub_id_that_is_nowhere_is_refused_at_once(cache: Path):
    with pytest.raises(LoadError, match="'org/unknown' is not in the local cache, and the hub cannot be reached"):
        bring("org/unknown", ServerArgs(model_path="org/unknown", download_dir=str(cache)), weights=True)
    with pytest.raises(LoadError, match="the hub cannot be reached"):
        check_available("org/unknown")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("./no/such/folder", "is not a folder"),
        ("/no/such/model.gguf", "is not a folder"),
        (__file__, "is a file, and not a GGUF file"),
        ("a hub id with spaces", "neither a folder nor a hub id"),
    ],
)
def test_a_path_that_is_nothing_is_refused(path: str, message: str):
    with pytest.raises(LoadError, match=message):
        check_available(path)
