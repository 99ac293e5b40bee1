"""How much memory the engine takes: from the flags where they say it, else from the machine."""

from __future__ import annotations

import os
import sys

import psutil
import torch

from .engine import EngineSettings
from .errors import LoadError
from .model import Model
from .schedule import Policy
from .server_args import ServerArgs

MEMORY_SHARE = {"cpu": 0.5, "cuda": 0.88}
"""Of the free memory on a CPU, which others use too; of the whole memory on a GPU."""
SMALL_WEIGHTS = 64 << 20
CHUNK = {"cpu": 512, "cuda": 8192}
ROWS = {"cpu": 64, "cuda": 256}


def resolve_settings(args: ServerArgs, model: Model) -> EngineSettings:
    """Sizes for `model` on this machine. Raises `LoadError`, with what is needed and what is free, if it does not fit."""
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
    )
    seed = args.random_seed if args.random_seed is not None else int.from_bytes(os.urandom(4))
    return EngineSettings(slots, min(rows, slots), policy, seed, args.decode_log_interval)


def choose_threads(model: Model) -> None:
    """On a CPU, run a small model on one core: its matrices are too small to share, and waiting for a busy core costs most."""
    if model.device.type == "cpu" and model.weight_bytes < SMALL_WEIGHTS:
        torch.set_num_threads(1)


def _affordable_slots(args: ServerArgs, model: Model) -> int:
    share = args.mem_fraction_static or MEMORY_SHARE[model.device.type]
    if model.device.type == "cuda":
        budget = torch.cuda.mem_get_info()[1] * share - model.weight_bytes
    else:
        budget = psutil.virtual_memory().available * share
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
    free = torch.cuda.mem_get_info()[0] if cuda else psutil.virtual_memory().available
    if needed > free:
        raise LoadError(
            f"the KV cache needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free. Lower --max-total-tokens."
        )
