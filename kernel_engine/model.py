"""The model: a Hugging Face causal language model, unchanged, run on our KV pool.

Owns what a loaded module is to the engine: the sizes of its cache, the tokens that end a text, its defaults of sampling, and
one method, `forward`, from a batch to logits.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .attention import IMPLEMENTATION
from .batch import Batch
from .errors import LoadError
from .features import AttentionLayer, observe, replace_attention, windows
from .fuse import fuse
from .lora import Adapters
from .pool import KVCache
from .vision.sight import Sight

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

QUERY_TOKENS = 256
"""On a GPU, steps of up to so many tokens compute each as a query of its own, which takes one kernel and fits a CUDA graph; longer
ones read each sequence's keys once for all of its tokens."""
SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the KV pool needs to know of a model. `context` is in tokens."""

    layers: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int


class Model:
    """A loaded model and its tokenizer. Raises `LoadError` for a model that would be computed wrong.

    `context_length` shortens the model's own context; `cache_dtype` is that of the keys and values kept, by default the
    model's. `stop_tokens` are the ids that end a text unless `ignore_eos`; `default_sampling` is what the model's
    generation_config.json sets of temperature, top_p, top_k, min_p and repetition_penalty; `windows` are those of its layers;
    `adapters` are those that were put into `module`, `sight` is its vision part if it has one.
    A step of up to `query_tokens` tokens is laid out with each as a query of its own.
    """

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        context_length: int | None = None,
        cache_dtype: torch.dtype | None = None,
        adapters: Adapters | None = None,
        sight: Sight | None = None,
    ):
        self.module, self.tokenizer = module.eval().requires_grad_(False), tokenizer
        self.adapters, self.sight = adapters or Adapters(), sight
        self.axes = sight.axes if sight else 1
        layers = observe(module)
        replace_attention(module, IMPLEMENTATION)
        fuse(module)
        self.windows = windows(layers)
        self.shape = _shape(module.config.get_text_config(decoder=True), layers, context_length)
        self.device, self.dtype = module.device, module.dtype
        self.query_tokens = QUERY_TOKENS if self.device.type == "cuda" else 0
        self.cache_dtype = cache_dtype or self.dtype
        self.stop_tokens = _stop_tokens(module, tokenizer)
        self.default_sampling = _default_sampling(module)

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Run one step; returns logits `[len(batch.logit_rows), vocabulary]` in fp32."""
        self.adapters.begin(batch.segments, self.device)
        output = self.module(
            **self._tokens(batch),
            position_ids=batch.positions if self.axes == 1 else batch.positions[:, None],
            use_cache=False,
            logits_to_keep=batch.logit_rows,
            batch=batch,
            cache=cache,
        )
        return output.logits[0].float()

    def _tokens(self, batch: Batch) -> dict[str, Tensor]:
        """The batch's tokens as ids, or, where some stand for images, as embeddings."""
        if not batch.seen:
            return {"input_ids": batch.input_ids[None]}
        assert self.sight is not None
        embeddings = self.module.get_input_embeddings()(batch.input_ids)
        for seen in batch.seen:
            found = self.sight.embeddings(seen.picture)[seen.first : seen.first + seen.end - seen.begin]
            embeddings[seen.begin : seen.end] = found.to(embeddings.dtype)
        return {"inputs_embeds": embeddings[None]}

    def new_cache(self, slots: int) -> KVCache:
        shape = self.shape
        return KVCache(shape.layers, slots, shape.kv_heads, shape.head_dim, self.cache_dtype, self.device)

    @property
    def kv_bytes_per_token(self) -> int:
        return KVCache.bytes_per_token(self.shape.layers, self.shape.kv_heads, self.shape.head_dim, self.cache_dtype)

    @property
    def weight_bytes(self) -> int:
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _shape(config: PretrainedConfig, layers: Sequence[AttentionLayer], context_length: int | None) -> Shape:
    own = _context(config)
    if context_length is not None and context_length > own:
        raise LoadError(
            f"--context-length {context_length} is more than the model's {own} positions. To go beyond what it was trained for, "
            f"override its config with --json-model-override-args '{{\"max_position_embeddings\": {context_length}}}'."
        )
    return Shape(
        layers=len(layers),
        kv_heads=layers[0].kv_heads,
        head_dim=layers[0].head_dim,
        vocab=config.vocab_size,
        context=context_length or own,
    )


def _context(config: PretrainedConfig) -> int:
    """The positions that a model has. With longrope, transformers turns every token of a batch otherwise once one lies beyond
    the length the model was first trained on, so cached keys would not fit: the context ends there."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return config.max_position_embeddings
    first = min(config.max_position_embeddings, rope["original_max_position_embeddings"])
    logger.warning("the context ends at %d tokens: longer texts would need other positions (longrope).", first)
    return first


def _stop_tokens(module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    found: set[int] = set()
    text = module.config.get_text_config(decoder=True)
    for ids in (
        getattr(module.config, "eos_token_id", None) or text.eos_token_id,
        getattr(module.generation_config, "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        found.update(i for i in (ids if isinstance(ids, list) else [ids]) if isinstance(i, int))
    return sorted(i for i in found if 0 <= i < text.vocab_size)


def _default_sampling(module: PreTrainedModel) -> dict[str, Any]:
    given = {name: getattr(module.generation_config, name, None) for name in SAMPLING_DEFAULTS}
    given["top_k"] = given["top_k"] or None  # transformers' 0 stands for all
    return {name: value for name, value in given.items() if value is not None}
