"""Flags about how the model is computed: on what, in how much memory, who is next, and with which kernels."""

from __future__ import annotations

from dataclasses import dataclass

from .flag import Rule, at_least, effective, noted, refused, some_of

WARMUPS = ("prefill", "batch", "regex", "json_schema")
OWN_KERNELS = "the engine chooses its kernels itself."
NO_HOST_TIER = "it belongs to --enable-hierarchical-cache, which is not supported."
NO_SPARSE_ATTENTION = "it belongs to --enable-double-sparsity, which is not supported."
NO_DUMPS = "take log-probabilities with `return_logprob`, or run the model in transformers to see its tensors."


@dataclass(frozen=True, kw_only=True)
class MemoryFlags:
    """Memory and scheduling"""

    mem_fraction_static: float | None = effective(
        None,
        "share of the memory, in (0, 1], for weights and KV cache; by default 0.88 of a GPU, 0.5 of the free memory",
        rule=Rule(lambda share: 0 < share <= 1, "be in (0, 1]"),
    )
    max_total_tokens: int | None = effective(
        None, "size of the KV cache in tokens; by default what the memory holds", rule=at_least(16)
    )
    max_running_requests: int | None = effective(None, "requests computed together", rule=at_least(1))
    chunked_prefill_size: int | None = effective(
        None,
        "prompt tokens of one request computed in one step; -1: no chunks; by default 512 on a CPU, else 8192",
        rule=Rule(lambda size: size == -1 or size >= 1, "be -1 or at least 1"),
    )
    max_prefill_tokens: int = effective(16384, "prompt tokens of all requests computed in one step", rule=at_least(1))
    schedule_policy: str = effective(
        "lpm",
        "which waiting request is next: the longest cached prefix (lpm), the first come (fcfs), any (random), the longest "
        "output (lof), or the one whose cached prefix most others share (dfs-weight)",
        choices=("lpm", "fcfs", "random", "lof", "dfs-weight"),
        sglangs="fcfs",
    )
    schedule_conservativeness: float = effective(
        1.0, "more reserves more room for outputs, which retracts less", rule=at_least(0)
    )
    allow_auto_truncate: bool = effective(
        False, "cut prompts that are too long, at their end, instead of refusing them"
    )
    disable_radix_cache: bool = effective(False, "share no prefixes")
    random_seed: int | None = effective(None, "of sampling and of dummy weights; by default a random one")
    watchdog_timeout: float = effective(
        300.0,
        "seconds that a step may take before the process ends itself",
        rule=Rule(lambda seconds: seconds > 0, "be more than 0"),
    )
    warmups: str | None = effective(
        None,
        f"what else to run before the server is ready, with commas between: {', '.join(WARMUPS)}",
        rule=some_of(WARMUPS),
    )
    page_size: int = noted(
        1, "tokens in a page of the KV cache", "prefixes are shared and memory is given token by token."
    )
    disable_chunked_prefix_cache: bool = noted(
        False, "recompute DeepSeek's prefixes whole", "it is about an attention that this engine does not have."
    )
    enable_mixed_chunk: bool = noted(False, "put prefill chunks and decoding tokens in one step", "every step is so.")
    num_continuous_decode_steps: int = noted(
        1,
        "decoding steps between two looks at the queue",
        "the queue is looked at before every step.",
        rule=at_least(1),
    )
    disable_overlap_schedule: bool = noted(
        False, "do not plan a step while the one before runs", "planning and computing do not overlap."
    )
    cpu_offload_gb: int = refused(
        0, "GB of weights to keep off the GPU", "the weights must fit; make them smaller with --quantization."
    )
    enable_memory_saver: bool = refused(
        False, "let go of the memory on demand", "end the server and start it again, which takes seconds."
    )
    enable_hierarchical_cache: bool = refused(
        False,
        "keep evicted prefixes in host memory",
        "the cache has one level; make it larger with --max-total-tokens.",
    )
    hicache_ratio: float = noted(2.0, "host cache as a multiple of the GPU's", NO_HOST_TIER)
    hicache_size: int = noted(0, "host cache in GB", NO_HOST_TIER)
    hicache_write_policy: str = noted("write_through_selective", "when to copy to the host", NO_HOST_TIER)


@dataclass(frozen=True, kw_only=True)
class ComputationFlags:
    """Computation"""

    device: str | None = effective(None, "cpu or cuda; by default cuda where there is one", choices=("cpu", "cuda"))
    base_gpu_id: int = effective(0, "which GPU to use", rule=at_least(0))
    disable_cuda_graph: bool = effective(False, "launch kernels one by one")
    cuda_graph_max_bs: int | None = effective(None, "largest batch that is captured", rule=at_least(1))
    cuda_graph_bs: tuple[int, ...] | None = effective(
        None, "the batch sizes that are captured", rule=Rule(lambda sizes: min(sizes) >= 1, "be at least 1 each")
    )
    disable_cuda_graph_padding: bool = effective(False, "use a graph only for batches of exactly its size")
    enable_nan_detection: bool = noted(
        False, "look for NaN in the logits", "every step looks, and ends only the requests concerned."
    )
    attention_backend: str | None = noted(None, "kernels of attention", OWN_KERNELS)
    mm_attention_backend: str | None = effective(
        None,
        "attention of the vision part, sdpa if not given",
        choices=("sdpa", "eager"),
        refuses=dict.fromkeys(("fa3", "triton_attn"), "use sdpa."),
    )
    sampling_backend: str | None = noted(None, "kernels of sampling", OWN_KERNELS)
    triton_attention_reduce_in_fp32: bool = noted(False, "sum attention in fp32", "attention is always summed in fp32.")
    triton_attention_num_kv_splits: int = noted(8, "parts of a long context in attention", OWN_KERNELS)
    flashinfer_mla_disable_ragged: bool = noted(False, "one of FlashInfer's kernels for DeepSeek", OWN_KERNELS)
    enable_torch_compile: bool = refused(
        False, "compile the model", "it would take minutes at start; the engine fuses what it knows by itself."
    )
    torch_compile_max_bs: int = noted(32, "largest batch that is compiled", "nothing is compiled.")
    enable_double_sparsity: bool = refused(
        False,
        "attend to the heaviest tokens only",
        "its answers differ from the model's own; use --kv-cache-dtype fp8_e5m2.",
    )
    ds_channel_config_path: str | None = noted(None, "channels to look at", NO_SPARSE_ATTENTION)
    ds_heavy_channel_num: int = noted(32, "number of channels", NO_SPARSE_ATTENTION)
    ds_heavy_token_num: int = noted(256, "number of tokens", NO_SPARSE_ATTENTION)
    ds_heavy_channel_type: str = noted("qk", "kind of channels", NO_SPARSE_ATTENTION)
    ds_sparse_decode_threshold: int = noted(4096, "context from which on it is sparse", NO_SPARSE_ATTENTION)
    debug_tensor_dump_output_folder: str | None = refused(None, "write tensors to files", NO_DUMPS)
    debug_tensor_dump_input_file: str | None = refused(None, "read tensors from a file", NO_DUMPS)
    debug_tensor_dump_inject: bool = refused(False, "put tensors in from a file", NO_DUMPS)
