"""Which models are computed right: what a config names, and what the attention layers turn out to ask for.

Invariant: a model that passes both checks attends causally, to all or to a window of its context, in every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .errors import LoadError
from .source import first_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

OBSERVER = "kernel_engine_observer"
MODEL = "AutoModelForCausalLM"
LAYER_TYPES = {"full_attention", "sliding_attention"}
REFUSED_INPUTS = {
    "s_aux": "attention sinks",
    "sinks": "attention sinks",
    "position_bias": "a bias of attention by position",
    "indices": "sparse attention",
    "block_indices": "sparse attention",
}
"""What some models hand to their attention that ours does not take into account."""


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """One layer's keys and values, and the `window` of tokens, its own included, that each token sees; None sees all."""

    kv_heads: int
    head_dim: int
    window: int | None


def check_config(config: PretrainedConfig) -> None:
    """Raise `LoadError` for a model that its config shows to be computed wrong, before any weight is read."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    from .vision.families import FAMILIES

    name, text = config.model_type, config.get_text_config(decoder=True)
    special = sorted(set(getattr(text, "layer_types", None) or ()) - LAYER_TYPES)
    if config.is_encoder_decoder:
        raise _unsupported(name, "it is an encoder-decoder model, and only decoders are run here")
    known = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or name in FAMILIES
    if not known and MODEL not in (getattr(config, "auto_map", None) or {}):
        raise _unsupported(name, f"transformers has no causal language model of that type ({MODEL})")
    if special:
        raise _unsupported(name, f"some of its layers are of type {', '.join(special)}")
    if getattr(text, "num_kv_shared_layers", None):
        raise _unsupported(name, "some of its layers share the keys and values of others (num_kv_shared_layers)")
    if getattr(config, "quantization_config", None):
        method = dict(config.quantization_config).get("quant_method", "unknown")
        raise _unsupported(
            name,
            f"its weights are stored quantized ({method}); take the unquantized model, with --quantization, or a GGUF",
        )


@torch.inference_mode()
def observe(module: PreTrainedModel) -> list[AttentionLayer]:
    """The attention layers of `module`, in order, found by running two tokens through it. Replaces its attention.

    Raises `LoadError` if one of them asks for what our attention does not compute, or the model does not run as we run it.
    """
    name = module.config.model_type
    if not module._supports_attention_backend:
        raise _unsupported(name, "its attention cannot be replaced (no AttentionInterface)")
    replace_attention(module, OBSERVER)
    seen: dict[int, AttentionLayer | str] = {}
    tokens = torch.arange(2, device=module.device)
    try:
        output = module(
            input_ids=tokens[None], position_ids=tokens[None], use_cache=False, logits_to_keep=tokens[1:], seen=seen
        )
    except (TypeError, AttributeError) as error:
        raise _unsupported(name, f"they do not run on our inputs ({first_line(error)})") from error
    if output.logits.shape[1] != 1:
        raise _unsupported(name, "they give logits of tokens that were not asked for (no logits_to_keep)")
    config = module.config.get_text_config(decoder=True)
    layers: list[AttentionLayer] = []
    for layer in range(config.num_hidden_layers):
        found = seen.get(layer, "no attention over the context")
        if isinstance(found, str):
            raise _unsupported(name, f"its layer {layer} has {found}")
        layers.append(found)
    declared = getattr(config, "layer_types", None) or [None] * len(layers)
    if any(kind == "sliding_attention" and layer.window is None for kind, layer in zip(declared, layers, strict=False)):
        raise _unsupported(name, "its layers do not say how wide their sliding window is")
    if len({(layer.kv_heads, layer.head_dim) for layer in layers}) > 1:
        raise _unsupported(name, "its layers differ in their key heads")
    return layers


def replace_attention(module: PreTrainedModel, name: str) -> None:
    """Let the decoder of `module` use the attention called `name`; a vision part keeps its own."""
    module.set_attn_implementation({"text_config": name} if "text_config" in module.config.sub_configs else name)


def windows(layers: Sequence[AttentionLayer]) -> list[int | None]:
    """The different windows of `layers`."""
    return list(dict.fromkeys(layer.window for layer in layers))


def _note(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    seen: dict[int, AttentionLayer | str] | None = None,
    sliding_window: int | None = None,
    **inputs: Any,
) -> tuple[Tensor, None]:
    """Stands in for attention: notes the layer, or what is special about it, in `seen`, and returns nothing of use."""
    if seen is None:
        raise _unsupported(module.config.model_type, "what the engine tells the model does not reach its attention")  # pyright: ignore
    layer: int = module.layer_idx  # pyright: ignore[reportAssignmentType]
    refused = [feature for given, feature in REFUSED_INPUTS.items() if inputs.get(given) is not None]
    if refused:
        seen[layer] = refused[0]
    elif not inputs.get("is_causal", getattr(module, "is_causal", True)):
        seen[layer] = "bidirectional attention, which sees tokens that are not there yet"
    elif key.shape[-1] != value.shape[-1]:
        seen[layer] = (
            f"keys of {key.shape[-1]} and values of {value.shape[-1]} numbers a head, as latent attention (MLA) has"
        )
    else:
        seen[layer] = AttentionLayer(key.shape[1], key.shape[-1], sliding_window)
    return value.new_zeros((1, query.shape[2], query.shape[1], value.shape[-1])), None


def _unsupported(model_type: str, reason: str) -> LoadError:
    return LoadError(f"{model_type} models are not supported: {reason}.")


ALL_ATTENTION_FUNCTIONS.register(OBSERVER, _note)
