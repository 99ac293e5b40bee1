"""GGUF files are loaded as transformers loads them: config, tokenizer and weights from one file."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from kernel_engine.errors import LoadError
from kernel_engine.loading import load_model
from kernel_engine.server_args import ServerArgs
from kernel_engine.source import check_available

from .support import EOS, Oracle, StepEngine, byte_tokenizer, random_module

PROMPTS = [list(b"A file"), list(b"A file of numbers, and nothing else in it."), [7]]
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers.": "blk.",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
"""Parts of tensor names in a Qwen2 module, and in llama.cpp's files."""


def write(path: Path, module: PreTrainedModel) -> Path:
    """`module`, a Qwen2 model, in a GGUF file: matrices in fp16, vectors in fp32, as llama.cpp has them."""
    config = module.config
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    vocabulary = byte_tokenizer().get_vocab()
    tokens = [*sorted(vocabulary, key=lambda token: vocabulary[token]), "ab", "abc"]
    tokens += [f"<unused{i}>" for i in range(len(tokens), config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") and len(token) > 1 else 1 for token in tokens])
    writer.add_token_merges(["a b", "ab c"])
    writer.add_eos_token_id(EOS)
    for name, tensor in module.state_dict().items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        writer.add_tensor(name, (tensor.half() if tensor.dim() > 1 else tensor).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("gguf") / "small-f16.gguf", random_module("qwen2"))


@pytest.mark.parametrize(("folder", "load_format"), [(False, "auto"), (True, "auto"), (True, "gguf")])
def test_its_greedy_tokens_are_those_of_transformers(file: Path, folder: bool, load_format: str):
    path = file.parent if folder else file
    check_available(str(path))
    arguments = ServerArgs(model_path=str(path), load_format=load_format, device="cpu", dtype="float32")
    engine = StepEngine(load_model(arguments))
    oracle = Oracle(AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32))
    rids = [engine.add(prompt) for prompt in PROMPTS]
    engine.run()
    assert [engine.results[rid].tokens for rid in rids] == [oracle.tokens(prompt, 16) for prompt in PROMPTS]


def test_its_tokenizer_and_stop_token_come_from_the_file(file: Path):
    model = load_model(ServerArgs(model_path=str(file), device="cpu"))
    text = "grab an abc, déjà vu"
    expected = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)(text)["input_ids"]
    assert model.tokenizer(text)["input_ids"] == expected
    assert model.tokenizer.decode(expected) == text
    assert model.stop_tokens == [EOS]


def test_a_folder_with_two_files_needs_a_name(file: Path, tmp_path: Path):
    for name in ("one.gguf", "two.gguf"):
        (tmp_path / name).symlink_to(file)
    for load_format in ("auto", "gguf"):
        with pytest.raises(LoadError, match=r"holds one.gguf, two.gguf\. Name the file"):
            load_model(ServerArgs(model_path=str(tmp_path), load_format=load_format, device="cpu"))


def test_a_flag_that_contradicts_the_file_is_refused(file: Path):
    with pytest.raises(LoadError, match="leave --load-format out"):
        load_model(ServerArgs(model_path=str(file), load_format="safetensors", device="cpu"))


def test_without_the_package_the_error_names_it(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(LoadError, match="`pip install gguf"):
        load_model(ServerArgs(model_path=str(file), device="cpu"))


def test_a_damaged_file_is_refused(tmp_path: Path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(LoadError, match=r"cannot load .*broken\.gguf"):
        load_model(ServerArgs(model_path=str(tmp_path / "broken.gguf"), device="cpu"))
