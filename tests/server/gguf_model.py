"""A Qwen2 model's folder as a GGUF file, for servers that read nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TENSORS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(folder: Path, target: Path) -> None:
    """Write the model in `folder` (with tied embeddings) to `target`, in half precision."""
    import gguf

    def read(name: str) -> dict[str, Any]:
        return json.loads((folder / name).read_text())

    config = read("config.json")
    writer = gguf.GGUFWriter(target, "qwen2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer, read("tokenizer.json"), config, read("tokenizer_config.json")["chat_template"])
    _add_tensors(writer, folder / "model.safetensors")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, tokenizer: dict[str, Any], config: dict[str, Any], chat_template: str) -> None:
    import gguf

    model = tokenizer["model"]
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    texts = {place: text for text, place in model["vocab"].items()} | special
    tokens = [texts.get(place, f"[unused{place}]") for place in range(config["vocab_size"])]
    kinds = [
        gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL if i in texts else gguf.TokenType.UNUSED
        for i in range(len(tokens))
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(chat_template)


def _add_tensors(writer: Any, weights: Path) -> None:
    import torch
    from safetensors.torch import load_file

    for name, tensor in load_file(weights).items():
        path, kind = name.rsplit(".", 1)
        if path.startswith("model.layers."):
            layer, part = path.removeprefix("model.layers.").split(".", 1)
            target = f"blk.{layer}.{TENSORS[part]}.{kind}"
        else:
            target = f"{TENSORS[path]}.{kind}"
        dtype = torch.float16 if tensor.dim() == 2 else torch.float32  # llama.cpp wants vectors in single precision
        writer.add_tensor(target, tensor.to(dtype).numpy())
