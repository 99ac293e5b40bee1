"""Flags about more than one GPU or machine. This engine runs on one; SGLang itself, with the same flags, runs on many."""

from __future__ import annotations

from dataclasses import dataclass

from .flag import noted, refused

ONE_GPU = "this engine runs on one GPU or a CPU; for more, start SGLang itself with the same flags."
NOTHING_TO_SPLIT = "there is nothing to split or to coordinate on one GPU."
ONE_SERVER = "one server both reads prompts and writes answers."


@dataclass(frozen=True, kw_only=True)
class SeveralFlags:
    """Several GPUs or machines"""

    tp_size: int = refused(1, "GPUs that split each layer", ONE_GPU, also=("--tensor-parallel-size", "--tp"))
    pp_size: int = refused(1, "GPUs that split the layers", ONE_GPU, also=("--pipeline-parallel-size", "--pp"))
    dp_size: int = refused(1, "copies of the model", ONE_GPU, also=("--data-parallel-size", "--dp"))
    ep_size: int = refused(1, "GPUs that split the experts", ONE_GPU, also=("--expert-parallel-size", "--ep"))
    nnodes: int = refused(1, "machines", ONE_GPU)
    node_rank: int = refused(0, "which of the machines this is", ONE_GPU)
    dist_init_addr: str | None = noted(None, "where the processes meet", NOTHING_TO_SPLIT, also=("--nccl-init-addr",))
    dist_timeout: int | None = noted(None, "seconds to wait for other processes", NOTHING_TO_SPLIT)
    load_balance_method: str = noted("round_robin", "which copy takes a request", NOTHING_TO_SPLIT)
    max_micro_batch_size: int | None = noted(None, "batch of a pipeline stage", NOTHING_TO_SPLIT)
    gpu_id_step: int = noted(1, "distance between the GPUs used", NOTHING_TO_SPLIT)
    disable_custom_all_reduce: bool = noted(False, "sum over GPUs with NCCL", NOTHING_TO_SPLIT)
    enable_p2p_check: bool = noted(False, "check that GPUs reach each other", NOTHING_TO_SPLIT)
    enable_nccl_nvls: bool = noted(False, "let NVLink's switch sum", NOTHING_TO_SPLIT)
    enable_dp_attention: bool = noted(False, "split attention by requests", NOTHING_TO_SPLIT)
    enable_dp_lm_head: bool = noted(False, "split the last layer by requests", NOTHING_TO_SPLIT)
    enable_ep_moe: bool = noted(False, "split the experts", NOTHING_TO_SPLIT)
    enable_deepep_moe: bool = noted(False, "exchange tokens between experts with DeepEP", NOTHING_TO_SPLIT)
    deepep_mode: str = noted("auto", "which of DeepEP's modes", NOTHING_TO_SPLIT)
    moe_dense_tp_size: int | None = noted(None, "GPUs that split the dense layers", NOTHING_TO_SPLIT)
    n_share_experts_fusion: int = noted(0, "copies of the shared experts", NOTHING_TO_SPLIT)
    disaggregation_mode: str = refused("null", "only read prompts, or only write answers", ONE_SERVER)
    disaggregation_bootstrap_port: int = noted(8998, "where the two kinds meet", ONE_SERVER)
    disaggregation_transfer_backend: str = noted("mooncake", "what carries the KV cache", ONE_SERVER)
    disaggregation_ib_device: str | None = noted(None, "the network card", ONE_SERVER)
    pdlb_url: str | None = noted(None, "load balancer of the two kinds", ONE_SERVER)
