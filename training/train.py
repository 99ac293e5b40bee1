"""Trains tiny-chat on CPU: single-threaded workers average their gradients, so a busy core never stalls every matmul.

`python -m training.train FOLDER --steps N` reads FOLDER/tokenizer.json, and writes (or goes on from) FOLDER/checkpoint.pt.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from transformers import Qwen2ForCausalLM

from training.batches import batches
from training.model import build

WARM_UP_STEPS = 60
# Share of the run in which the learning rate falls to zero.
DECAY_SHARE = 0.6


@dataclass(frozen=True)
class Plan:
    """What one run does; equal plans give equal runs."""

    folder: Path
    steps: int
    seed: int
    workers: int
    tokens_per_worker: int
    matrix_rate: float
    other_rate: float
    save_every: int


class Optimizers:
    """Muon for the matrices inside the layers, AdamW for embeddings, norms and biases; one schedule for both."""

    def __init__(self, layers: list[nn.Module], model: nn.Module, matrix_rate: float, other_rate: float) -> None:
        matrices = [p for layer in layers for p in layer.parameters() if p.ndim == 2]
        inside = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in inside]
        self.parts: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=0.01, momentum=0.95), matrix_rate),
            (torch.optim.AdamW(others, lr=other_rate, weight_decay=0.0, betas=(0.9, 0.98)), other_rate),
        ]

    def add_matrices(self, layers: list[nn.Module], rate: float) -> None:
        """Hand the matrices of `layers` from AdamW to a Muon of their own."""
        matrices = [p for layer in layers for p in layer.parameters() if p.ndim == 2]
        inside = {id(p) for p in matrices}
        for group in self.parts[1][0].param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in inside]
        self.parts.append((torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, momentum=0.95), rate))

    def step(self, scale: float) -> None:
        for optimizer, rate in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            optimizer.step()
            optimizer.zero_grad()

    def state(self) -> list[dict[str, object]]:
        return [optimizer.state_dict() for optimizer, _ in self.parts]

    def restore(self, states: list[dict[str, object]]) -> None:
        for (optimizer, _), state in zip(self.parts, states, strict=True):
            optimizer.load_state_dict(state)


def rate_scale(step: int, steps: int) -> float:
    """Warm-up, a plateau, then a straight line to zero."""
    return min(1.0, (step + 1) / WARM_UP_STEPS, (steps - step) / (steps * DECAY_SHARE))


def loss_of(model: Qwen2ForCausalLM, ids: Tensor, learned: Tensor) -> Tensor:
    """Mean cross-entropy over the learned tokens; causal attention needs no mask for padding on the right."""
    target = learned[:, 1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[target])
    return F.cross_entropy(logits.float(), ids[:, 1:][target])


def average_gradients(model: nn.Module, workers: int) -> None:
    """Leave the mean of all workers' gradients, clipped, in each worker."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    if workers > 1:
        dist.all_reduce(flat)
        flat /= workers
    flat *= min(1.0, 1.0 / (flat.norm().item() + 1e-6))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def save(path: Path, model: Qwen2ForCausalLM, optimizers: Optimizers, step: int) -> None:
    """Write the checkpoint in one move, so that an export never reads half of it."""
    state = {"model": model.state_dict(), "optimizers": optimizers.state(), "step": step}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def join(folder: Path, rank: int, workers: int) -> None:
    """Meet the other workers."""
    rendezvous = f"file://{(folder / 'rendezvous').resolve()}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=workers)


def start(work: Callable[[int, Any], None], plan: Any) -> None:
    """Run `work(rank, plan)` in as many processes as the plan has workers, each with one thread."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    (plan.folder / "rendezvous").unlink(missing_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn(work, args=(plan,), nprocs=plan.workers)


def work(rank: int, plan: Plan) -> None:
    """One worker's whole run."""
    torch.set_num_threads(1)
    if plan.workers > 1:
        join(plan.folder, rank, plan.workers)
    tokenizer = Tokenizer.from_file(str(plan.folder / "tokenizer.json"))
    torch.manual_seed(plan.seed)
    model = build(tokenizer)
    optimizers = Optimizers(list(model.model.layers), model, plan.matrix_rate, plan.other_rate)
    checkpoint, first = plan.folder / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizers.restore(state["optimizers"])
        first = state["step"]
    source = batches(tokenizer, hash((plan.seed, first, rank)), plan.tokens_per_worker)
    seen, smooth, began = 0, 0.0, time.monotonic()
    for step in range(first, plan.steps):
        ids, learned = next(source)
        loss = loss_of(model, ids, learned)
        loss.backward()
        average_gradients(model, plan.workers)
        optimizers.step(rate_scale(step, plan.steps))
        seen += ids.numel() * plan.workers
        smooth = loss.item() if step == first else 0.95 * smooth + 0.05 * loss.item()
        if rank == 0 and (step + 1) % 20 == 0:
            speed = seen / (time.monotonic() - began)
            print(f"step {step + 1}/{plan.steps} loss {smooth:.4f} tokens {seen} tok/s {speed:.0f}", flush=True)
        if rank == 0 and ((step + 1) % plan.save_every == 0 or step + 1 == plan.steps):
            save(checkpoint, model, optimizers, step + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tokens-per-worker", type=int, default=3072)
    parser.add_argument("--matrix-rate", type=float, default=0.02)
    parser.add_argument("--other-rate", type=float, default=0.004)
    parser.add_argument("--save-every", type=int, default=100)
    start(work, Plan(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
