"""What would be computed wrong is refused at load, with a sentence that names the feature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM, PretrainedConfig, PreTrainedModel

from kernel_engine.errors import LoadError
from kernel_engine.loading import load_model
from kernel_engine.model import Model
from kernel_engine.server_args import ServerArgs

from .support import EOS, byte_tokenizer, random_module


def config(name: str, **values: Any) -> PretrainedConfig:
    import transformers

    shape = {
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": None, "bos_token_id": None,
        "eos_token_id": EOS,
    }  # fmt: skip
    return getattr(transformers, name)(**shape | values)


REFUSED: dict[str, tuple[PretrainedConfig, str]] = {
    "sinks": (config("GptOssConfig", head_dim=16, num_local_experts=4), "its layer 0 has attention sinks"),
    "chunks": (config("Llama4TextConfig", head_dim=16, num_local_experts=2, intermediate_size_mlp=96), "chunked_attention"),
    "latent attention": (
        config(
            "DeepseekV3Config", n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, q_lora_rank=16,
            kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16, moe_intermediate_size=32,
        ),
        r"keys of 24 and values of 16 numbers a head, as latent attention \(MLA\)",
    ),
    "state space": (config("MambaConfig"), "linear_attention"),
    "linear attention": (
        config(
            "Qwen3NextConfig", head_dim=16, num_experts=4, num_experts_per_tok=2, linear_num_value_heads=4,
            linear_num_key_heads=2, linear_key_head_dim=16, linear_value_head_dim=16,
        ),
        "linear_attention",
    ),
    "an encoder": (config("T5Config", d_model=64), "encoder-decoder"),
    "no language model": (config("ViTConfig"), "transformers has no causal language model of that type"),
    "a text encoder": (config("Gemma3TextConfig", head_dim=16, use_bidirectional_attention=True), "bidirectional"),
    "shared keys": (config("Gemma3nTextConfig", head_dim=16), "num_kv_shared_layers"),
    "ALiBi": (config("MptConfig", d_model=64, n_heads=4, n_layers=2), "cannot be replaced"),
    "a closed attention": (config("NemotronConfig"), "does not reach its attention"),
    "uneven layers": (
        config("Gemma4TextConfig", head_dim=16, vocab_size_per_layer_input=320, num_kv_shared_layers=0),
        "its layers differ in their key heads",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_computed_wrong_is_refused_by_name(name: str, tmp_path: Path):
    wanted, message = REFUSED[name]
    wanted.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(LoadError, match=rf"{wanted.model_type} models are not supported: .*{message}"):
        load_model(ServerArgs(model_path=str(tmp_path), load_format="dummy", device="cpu"))


class AllLogits(LlamaForCausalLM):
    def forward(self, *arguments: Any, logits_to_keep: Any = 0, **options: Any) -> Any:
        return super().forward(*arguments, **options)


class NoExtras(LlamaForCausalLM):
    def forward(self, input_ids: Any, position_ids: Any, use_cache: bool) -> Any:
        return super().forward(input_ids=input_ids, position_ids=position_ids, use_cache=use_cache)


@pytest.mark.parametrize(
    ("kind", "message"), [(AllLogits, "no logits_to_keep"), (NoExtras, "do not run on our inputs")]
)
def test_a_model_that_runs_otherwise_is_refused(kind: type[PreTrainedModel], message: str):
    with pytest.raises(LoadError, match=message):
        Model(kind(random_module("llama").config), byte_tokenizer())
