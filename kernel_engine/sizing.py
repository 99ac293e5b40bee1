"""How much memory the engine takes: from the flags where they say it, else from the machine."""

from __future__ import annotations

import os
import sys

import torch

from .engine import EngineSettings
from .errors import LoadError
from .graphs import GraphSettings
from .machine import free_memory, usable_cores
from .model import QUERY_TOKENS, Model
from .schedule import Policy
from .server_args import ServerArgs
from .step_log import BETWEEN_TOKENS, FIRST_TOKEN, WHOLE_REQUEST, LogSettings

MEMORY_SHARE = {"cpu": 0.5, "cuda": 0.88}
"""Of the free memory on a CPU, which others use too; of the whole memory on a GPU."""
SMALL_WEIGHTS = 64 << 20
"""On a CPU, a model of less runs on one core: its matrices are too small to share, and waiting for a busy core costs most."""
CHUNK = {"cpu": 512, "cuda": 8192}
ROWS = {"cpu": 64, "cuda": 256}
GRAPH_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of tokens that are recorded as CUDA graphs; steps between two of them are padded to the larger one."""
DRAFTED = 8
"""Tokens guessed at once for a request, unless a flag says otherwise: where a text repeats itself, most of 8 are right."""


def resolve_settings(args: ServerArgs, model: Model, threads: int) -> EngineSettings:
    """Sizes for `model` on this machine, with at most `threads` threads. Raises `LoadError`, with what is needed and what is free,
    if it does not fit."""
    kind = model.device.type
    rows = args.max_running_requests or ROWS[kind]
    slots = args.max_total_tokens or min(_affordable_slots(args, model), rows * model.shape.context)
    _check_free(slots * model.kv_bytes_per_token, model)
    chunk = args.chunked_prefill_size or CHUNK[kind]
    policy = Policy(
        chunk=sys.maxsize if chunk == -1 else chunk,
        max_prefill=args.max_prefill_tokens,
        order=args.schedule_policy,
        conservativeness=args.schedule_conservativeness,
        share_prefixes=not args.disable_radix_cache,
        adapters_at_once=args.max_loras_per_batch,
        drafted=(args.speculative_num_draft_tokens or DRAFTED) if args.speculative_algorithm else 0,
    )
    seed = args.random_seed if args.random_seed is not None else int.from_bytes(os.urandom(4))
    return EngineSettings(
        slots,
        min(rows, slots),
        policy,
        seed,
        threads=1 if kind == "cpu" and model.weight_bytes < SMALL_WEIGHTS else usable_cores(threads),
        graphs=_graph_settings(args, kind),
        log=_log_settings(args),
        auto_truncate=args.allow_auto_truncate,
        grammar_backend=args.grammar_backend,
        json_whitespace=args.constrained_json_whitespace_pattern,
    )


def _graph_settings(args: ServerArgs, kind: str) -> GraphSettings:
    if kind != "cuda" or args.disable_cuda_graph:
        return GraphSettings()
    largest = min(args.cuda_graph_max_bs or QUERY_TOKENS, QUERY_TOKENS)
    sizes = sorted({size for size in args.cuda_graph_bs or GRAPH_SIZES if size <= largest})
    return GraphSettings(tuple(sizes), padding=not args.disable_cuda_graph_padding)


def _log_settings(args: ServerArgs) -> LogSettings:
    return LogSettings(
        interval=args.decode_log_interval,
        times=args.enable_request_time_stats_logging,
        lengths=args.collect_tokens_histogram,
        first_token=args.bucket_time_to_first_token or FIRST_TOKEN,
        between_tokens=args.bucket_inter_token_latency or BETWEEN_TOKENS,
        whole_request=args.bucket_e2e_request_latency or WHOLE_REQUEST,
    )


def _affordable_slots(args: ServerArgs, model: Model) -> int:
    share = args.mem_fraction_static or MEMORY_SHARE[model.device.type]
    if model.device.type == "cuda":
        budget = torch.cuda.mem_get_info()[1] * share - model.weight_bytes
    else:
        # Weights that are mapped count as available: the system could drop them and read them again, at every step.
        budget = (free_memory() - model.weight_bytes) * share
    slots = int(budget // model.kv_bytes_per_token)
    if slots < model.shape.context:
        raise LoadError(
            f"too little memory for one context of {model.shape.context} tokens: the KV cache needs "
            f"{model.shape.context * model.kv_bytes_per_token / 1e9:.2f} GB, {max(budget, 0) / 1e9:.2f} GB are free for it. "
            "Shorten the context with --context-length, or set --max-total-tokens or --mem-fraction-static."
        )
    return slots


def _check_free(needed: int, model: Model) -> None:
    cuda = model.device.type == "cuda"
    free = torch.cuda.mem_get_info()[0] if cuda else free_memory()
    if needed > free:
        raise LoadError(
            f"the KV cache needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. Lower --max-total-tokens."
        )
