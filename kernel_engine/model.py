"""The model: a Hugging Face causal language model, loaded unchanged and run on our KV pool.

Owns how it is loaded (weights or random ones), what it runs as (device, dtype), and one method, `forward`, from a batch to
logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .attention import IMPLEMENTATION
from .batch import Batch
from .errors import LoadError
from .fuse import fuse
from .pool import KVCache
from .source import first_line, is_bundled, resolve_model_path

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

    from .server_args import ServerArgs

SMALL_MODEL_BYTES = 512 << 20
"""On a CPU, a bf16 checkpoint up to this size runs in fp32: its steps cost calls, not bytes, and fp32 calls cost less."""
DTYPES = {
    "half": torch.float16, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "float": torch.float32, "float32": torch.float32,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """What the KV pool needs to know of a model. `context` is in tokens."""

    layers: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int


class Model:
    """A loaded model and its tokenizer. `stop_tokens` are the ids that end a text unless `ignore_eos`.

    `context_length` shortens the model's own context. Raises `LoadError` for a model that would be computed wrong.
    """

    def __init__(self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, context_length: int | None = None):
        config = module.config.get_text_config(decoder=True)
        _refuse_unsupported(module, config)
        module.set_attn_implementation(IMPLEMENTATION)
        self.module, self.tokenizer = module.eval().requires_grad_(False), tokenizer
        fuse(module)
        self.shape = _shape(config, context_length)
        self.device, self.dtype = module.device, module.dtype
        self.stop_tokens = _stop_tokens(module, tokenizer)

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Run one step; returns logits `[len(batch.logit_rows), vocabulary]` in fp32."""
        output = self.module(
            input_ids=batch.input_ids[None],
            position_ids=batch.positions[None],
            use_cache=False,
            logits_to_keep=batch.logit_rows,
            batch=batch,
            cache=cache,
        )
        return output.logits[0].float()

    def new_cache(self, slots: int) -> KVCache:
        shape = self.shape
        return KVCache(shape.layers, slots, shape.kv_heads, shape.head_dim, self.dtype, self.device)

    @property
    def kv_bytes_per_token(self) -> int:
        return KVCache.bytes_per_token(self.shape.layers, self.shape.kv_heads, self.shape.head_dim, self.dtype)

    @property
    def weight_bytes(self) -> int:
        return sum(p.numel() * p.element_size() for p in self.module.parameters())


def load_model(args: ServerArgs) -> Model:
    """Load what `args.model_path` names. Raises `LoadError` with a sentence if that cannot be done."""
    path = resolve_model_path(args.model_path)
    config = _load_config(path, args)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = resolve_dtype(args.dtype, config, device)
    tokenizer = _load_tokenizer(resolve_model_path(args.tokenizer_path or args.model_path), args)
    module = _load_module(path, config, args, dtype, device)
    return Model(module, tokenizer, args.context_length)


def resolve_dtype(name: str, config: PretrainedConfig, device: torch.device) -> torch.dtype:
    """SGLang's rule for `auto` (bf16 stays, fp32 and fp16 run as fp16) on a GPU; on a CPU the checkpoint's own, small ones fp32."""
    if name != "auto":
        return DTYPES[name]
    stored = config.dtype or torch.float32
    stored = getattr(torch, stored) if isinstance(stored, str) else stored
    if device.type != "cpu":
        return torch.bfloat16 if stored == torch.bfloat16 else torch.float16
    text = config.get_text_config(decoder=True)
    layer = text.hidden_size * (
        4 * text.hidden_size + 3 * (getattr(text, "intermediate_size", None) or 4 * text.hidden_size)
    )
    parameters = text.vocab_size * text.hidden_size + text.num_hidden_layers * layer
    return torch.float32 if stored == torch.float16 or 2 * parameters <= SMALL_MODEL_BYTES else stored


def _load_config(path: str, args: ServerArgs) -> PretrainedConfig:
    from transformers import AutoConfig

    overrides = args.model_overrides()
    try:
        return AutoConfig.from_pretrained(
            path,
            trust_remote_code=args.trust_remote_code,
            revision=args.revision,
            cache_dir=args.download_dir,
            **overrides,
        )
    except (OSError, ValueError, KeyError) as error:
        raise LoadError(_load_failure(path, error)) from error


def _load_tokenizer(path: str, args: ServerArgs) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path,
            trust_remote_code=args.trust_remote_code and not is_bundled(path),
            revision=args.revision,
            cache_dir=args.download_dir,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise LoadError(f"no tokenizer in {path!r}: {first_line(error)} Name one with --tokenizer-path.") from error
    if not tokenizer("a")["input_ids"]:  # transformers makes an empty one where there are no files
        raise LoadError(f"no tokenizer in {path!r}. Name one with --tokenizer-path.")
    if not tokenizer.is_fast:
        raise LoadError(f"the tokenizer in {path!r} has no fast version (tokenizer.json), which streaming needs.")
    return tokenizer


def _load_module(
    path: str, config: PretrainedConfig, args: ServerArgs, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    common: dict[str, Any] = {
        "dtype": dtype,
        "trust_remote_code": args.trust_remote_code,
    }
    try:
        if args.load_format == "dummy":
            torch.manual_seed(args.random_seed or 0)
            with device:
                module = AutoModelForCausalLM.from_config(config, **common)
        else:
            module = AutoModelForCausalLM.from_pretrained(
                path,
                config=config,
                revision=args.revision,
                cache_dir=args.download_dir,
                **common,
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise LoadError(_load_failure(path, error)) from error
    module.to(device)  # pyright: ignore[reportArgumentType]
    return module


def _refuse_unsupported(module: PreTrainedModel, config: PretrainedConfig) -> None:
    """Refuse at load what would be computed wrong: our attention is causal, full and without caps or sinks."""
    name = type(module).__name__
    if not module._supports_attention_backend:
        raise LoadError(f"{name} is not supported: its attention cannot be replaced (no AttentionInterface).")
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    if layer_types != {"full_attention"} or (
        getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    ):
        raise LoadError(f"{name} is not supported yet: it uses sliding-window or other special attention layers.")
    if getattr(config, "attn_logit_softcapping", None):
        raise LoadError(f"{name} is not supported yet: it caps its attention logits (attn_logit_softcapping).")


def _shape(config: PretrainedConfig, context_length: int | None) -> Shape:
    heads = config.num_attention_heads
    context = config.max_position_embeddings
    if context_length is not None and context_length > context:
        raise LoadError(f"--context-length {context_length} is more than the model's {context} positions.")
    return Shape(
        layers=config.num_hidden_layers,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocab=config.vocab_size,
        context=context_length or context,
    )


def _stop_tokens(module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    found: set[int] = set()
    for ids in (
        module.config.eos_token_id,
        getattr(module.generation_config, "eos_token_id", None),
        tokenizer.eos_token_id,
    ):
        found.update(i for i in (ids if isinstance(ids, list) else [ids]) if isinstance(i, int))
    return sorted(i for i in found if 0 <= i < module.config.get_text_config(decoder=True).vocab_size)


def _load_failure(path: str, error: Exception) -> str:
    return f"cannot load {path!r}: {first_line(error)}"
