"""Flags about the model: where it comes from, in which numbers it is kept, and what is added to it."""

from __future__ import annotations

from dataclasses import dataclass

from .flag import at_least, effective, noted, refused

DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
WEIGHTS = ("int8", "int4", "int8wo", "int4wo-32", "int4wo-64", "int4wo-128")
STORED_QUANTIZED = (
    "awq", "awq_marlin", "bitsandbytes", "blockwise_int8", "fp8", "gguf", "gptq", "gptq_marlin", "marlin", "modelopt",
    "modelopt_fp4", "moe_wna16", "w8a8_fp8", "w8a8_int8",
)  # fmt: skip
TORCHAO_ONLY = ("int8dq", "int4wo-256", "fp8wo", "fp8dq-per_tensor", "fp8dq-per_row")
ROUNDED_AT_LOAD = "weights are rounded at load, to int8 or int4; one that is stored quantized is read as a GGUF file."
NO_DRAFT_MODEL = "drafts come from the request's own text; leave it out."
EXACT_DRAFTS = "a draft token is kept only if the model itself would have chosen it."


@dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Model"""

    model_path: str = effective(
        "", "folder in Hugging Face format, GGUF file, hub id, or bundled name (tiny-chat); required", also=("--model",)
    )
    tokenizer_path: str | None = effective(None, "where the tokenizer is, if not with the model")
    tokenizer_mode: str = refused(
        "auto", "slow: the tokenizer in Python", "streaming needs the fast tokenizer (tokenizer.json); leave it out."
    )
    skip_tokenizer_init: bool = refused(
        False,
        "serve token ids only",
        "the tokenizer is always loaded, and `input_ids` and `output_ids` work beside it.",
    )
    load_format: str = effective(
        "auto",
        "auto, safetensors, gguf, or dummy: random weights of the config's shape",
        choices=("auto", "safetensors", "gguf", "dummy"),
        refuses=dict.fromkeys(
            ("pt", "npcache", "sharded_state", "bitsandbytes", "layered", "remote"),
            "save the model as safetensors (`save_pretrained`) and load that.",
        ),
    )
    trust_remote_code: bool = effective(False, "run code that comes with the model")
    revision: str | None = effective(None, "branch, tag or commit on the hub")
    download_dir: str | None = effective(None, "where downloads are kept")
    json_model_override_args: str = effective("{}", "JSON object of config.json values to replace")
    dtype: str = effective("auto", "of weights and activations", choices=DTYPES)
    context_length: int | None = effective(
        None, "longest context in tokens, at most the model's own, which is the default", rule=at_least(1)
    )
    is_embedding: bool = refused(
        False, "serve embeddings", "this engine generates text; serve embeddings with SGLang itself."
    )
    enable_multimodal: bool | None = effective(
        None, "refuse to start if the model takes no images; those that do always take them"
    )
    delete_ckpt_after_loading: bool = refused(
        False, "delete the checkpoint once it is loaded", "this engine deletes no files of yours; delete it yourself."
    )


@dataclass(frozen=True, kw_only=True)
class LoraFlags:
    """LoRA adapters"""

    lora_paths: tuple[str, ...] | None = effective(
        None, "adapters in PEFT's format, NAME=PATH or PATH each; a request names one with `lora_path`"
    )
    max_loras_per_batch: int = effective(
        8, "adapters that are computed in one step", rule=at_least(1), needs="lora_paths"
    )
    lora_backend: str = noted("triton", "kernels for adapters", "adapters run on PyTorch's own matrix products.")


@dataclass(frozen=True, kw_only=True)
class QuantizationFlags:
    """Quantization"""

    quantization: str | None = effective(
        None,
        "what weights are rounded to at load",
        choices=WEIGHTS,
        refuses=dict.fromkeys(STORED_QUANTIZED, ROUNDED_AT_LOAD),
    )
    torchao_config: str = effective(
        "", "another flag for the same", choices=WEIGHTS, refuses=dict.fromkeys(TORCHAO_ONLY, ROUNDED_AT_LOAD)
    )
    kv_cache_dtype: str = effective(
        "auto", "of the KV cache", choices=("auto", "bf16", "bfloat16", "fp8_e5m2", "fp8_e4m3")
    )
    quantization_param_path: str | None = refused(
        None, "file of scales for an fp8 KV cache", "the KV cache is kept without scales; leave it out."
    )


@dataclass(frozen=True, kw_only=True)
class SpeculationFlags:
    """Speculation"""

    speculative_algorithm: str | None = effective(
        None,
        "NGRAM: draft tokens are looked up in the request's own text, and verified together",
        choices=("NGRAM",),
        refuses=dict.fromkeys(("EAGLE", "EAGLE3", "NEXTN"), "it needs a draft model; use NGRAM, which needs none."),
    )
    speculative_num_draft_tokens: int | None = effective(
        None,
        "most draft tokens of a request verified in one step; by default 8",
        rule=at_least(1),
        needs="speculative_algorithm",
    )
    speculative_num_steps: int | None = noted(None, "steps of the draft model", NO_DRAFT_MODEL)
    speculative_eagle_topk: int | None = noted(None, "branches of the draft model", NO_DRAFT_MODEL)
    speculative_draft_model_path: str | None = refused(None, "the draft model", NO_DRAFT_MODEL)
    speculative_token_map: str | None = refused(None, "the draft model's vocabulary", NO_DRAFT_MODEL)
    speculative_accept_threshold_single: float = refused(1.0, "accept likely drafts unverified", EXACT_DRAFTS)
    speculative_accept_threshold_acc: float = refused(1.0, "accept likely drafts unverified", EXACT_DRAFTS)
