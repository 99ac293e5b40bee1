"""The shape of tiny-chat: a Qwen2 of 4.2 million parameters with tied embeddings."""

from __future__ import annotations

from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

CONTEXT_LENGTH = 4096


def config(tokenizer: Tokenizer) -> Qwen2Config:
    """The configuration for a tokenizer's vocabulary."""
    return Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_LENGTH,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
    )


def build(tokenizer: Tokenizer) -> Qwen2ForCausalLM:
    """A freshly initialised model."""
    return Qwen2ForCausalLM(config(tokenizer))
