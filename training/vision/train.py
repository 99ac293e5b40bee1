"""Trains tiny-vision on CPU: first the vision tower alone, told what is in each cell, then all of the model.

`python -m training.vision.train FOLDER see --minutes M`, then `... FOLDER talk --minutes N`. Either goes on from
FOLDER/checkpoint.pt; the learning rate follows the minutes spent, since a shared machine does not promise steps.
Workers of one thread each average their gradients; all take the same kind of step, on a grid of the same size.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from training.batches import batches
from training.train import Optimizers, average_gradients, join
from training.train import start as start_workers
from training.vision.dialogues import about_one, about_several
from training.vision.export import read as read_export
from training.vision.forward import compile_layers, read, see, text_positions, vision_positions
from training.vision.images import Pictures, pictures
from training.vision.model import IMAGE, LOUDNESS, VISION, PatchEmbedding, build, tokenizer
from training.vision.patches import Grid, patches_of, pick_grid
from training.vision.sequences import Row, Rows, collate, plain_rows, row_of
from training.vision.targets import Heads

Stage = Literal["see", "talk"]
WARM_UP_STEPS = 40
BF16 = torch.bfloat16
SECTIONS = [8, 12, 12]
# The layer of the language part whose heads are told where to look, and how much that counts.
GUIDED, GUIDANCE = 2, 0.3
# What telling the tower what is in each cell counts in the second stage, beside what is said.
TOLD = 0.3
# Questions on each image, and the share of batches with several images a row.
BRANCHES, SEVERAL = 7, 0.04
CHARTS = 0.4
SEE_EVERY, TEXT_EVERY, TEXT_TOKENS = 5, 31, 3072
HEAD = VISION["hidden_size"] // VISION["num_heads"]


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    folder: Path
    stage: Stage
    minutes: float
    seed: int
    images: int
    matrix_rate: float
    language_rate: float
    other_rate: float
    decay_share: float
    easy: float
    save_every: int
    start: Path | None
    workers: int = 1


class Run:
    """The model with its heads and optimisers, and how far the training has come."""

    def __init__(self, plan: Plan, rank: int = 0) -> None:
        self.plan, self.rank = plan, rank
        self.words = tokenizer()
        torch.manual_seed(plan.seed)
        self.model = build(self.words)
        self.heads = Heads()
        self.patch = PatchEmbedding()
        self.both = nn.ModuleDict({"model": self.model, "patch": self.patch, "heads": self.heads})
        visual, language = self.model.model.visual, self.model.model.language_model
        trained: list[nn.Module] = [self.patch, visual.blocks, visual.merger]
        whole = (
            self.both
            if plan.stage == "talk"
            else nn.ModuleDict({"visual": visual, "patch": self.patch, "heads": self.heads})
        )
        self.optimizers = Optimizers(trained, whole, plan.matrix_rate, plan.other_rate)
        if plan.stage == "talk":
            self.optimizers.add_matrices([language.layers], plan.language_rate)
        self.state: dict[str, Any] = {"stage": plan.stage, "step": 0, "minutes": 0.0, "images": {"see": 0, "talk": 0}}
        self.image, self.padding = self.words.get_vocab()[IMAGE], self.words.get_vocab()["<|endoftext|>"]
        self.text = batches(self.words, hash((plan.seed, time.time(), rank)), TEXT_TOKENS)
        self.meter = Meter()
        self.checkpoint = plan.folder / "checkpoint.pt"
        if self.checkpoint.exists():
            self.restore()
        elif plan.start:
            weights, patch = read_export(plan.start)
            self.model.load_state_dict(weights)
            self.patch.load_state_dict({"weight": patch})
        else:
            rng = Random(plan.seed)
            self.patch.whiten(patches_of(pictures(rng, "train", (5, 5), 200, CHARTS).pixels))

    def restore(self) -> None:
        """Go on from the checkpoint; a new stage begins its own schedule with fresh optimisers."""
        saved = torch.load(self.checkpoint)
        self.both.load_state_dict(saved["both"])
        if saved["state"]["stage"] == self.plan.stage:
            if len(saved["optimizers"]) == len(self.optimizers.parts):
                self.optimizers.restore(saved["optimizers"])
            self.state = saved["state"]
        else:
            self.state["images"] = saved["state"]["images"]

    def save(self) -> None:
        """Write the checkpoint in one move, so that an export never reads half of it."""
        fresh = self.checkpoint.with_suffix(".new")
        torch.save({"both": self.both.state_dict(), "optimizers": self.optimizers.state(), "state": self.state}, fresh)
        fresh.replace(self.checkpoint)

    def rate_scale(self, minutes: float) -> float:
        """Warm-up by steps, a plateau, then a straight line to zero by the minutes spent."""
        left = (1 - minutes / self.plan.minutes) / max(self.plan.decay_share, 1e-9)
        return min(1.0, (self.state["step"] + 1) / WARM_UP_STEPS, max(left, 0.02))

    def look(self, batch: Pictures) -> tuple[Tensor, Tensor, list[float]]:
        """What the vision tower makes of the images, and the loss and hits of the heads."""
        cosine, sine = (t.to(BF16) for t in vision_positions(batch.grid, HEAD))
        seen = see(self.model.model.visual, self.patch.weight, patches_of(batch.pixels), cosine, sine)
        loss, right = self.heads.losses(seen, batch.labels)
        return seen, loss, right

    def talk(self, rows: Rows, seen: Tensor | None) -> Tensor:
        """Mean cross-entropy over the learned tokens; `seen` [image tokens, 256] takes the place of image tokens."""
        language = self.model.model.language_model
        x = language.embed_tokens(rows.ids).to(BF16)
        if seen is not None:
            x = x.masked_scatter((rows.ids == self.image)[..., None], (seen * LOUDNESS).to(BF16))
        cosine, sine = (t.to(BF16) for t in text_positions(rows.places, 64, SECTIONS))
        shares: dict[int, list[Tensor]] = {GUIDED: []}
        hidden = read(language, x, cosine, sine, rows.mask, shares)
        target = rows.learned[:, 1:]
        logits = F.linear(hidden[:, :-1][target], language.embed_tokens.weight)
        loss = F.cross_entropy(logits.float(), rows.ids[:, 1:][target])
        return loss if rows.looks is None else loss + GUIDANCE * self.guidance(shares[GUIDED][0], rows.looks)

    def guidance(self, shares: Tensor, looks: Tensor) -> Tensor:
        """How far two heads of one layer are from looking where the next token is found in the image."""
        row, token = (looks[:, 1:] >= 0).nonzero(as_tuple=True)
        looked = shares[row, :2, token, looks[row, token + 1]]
        self.meter.add(looks=looked.detach().float().mean().item())
        return -(looked.float() + 1e-4).log().mean()

    def update(self, loss: Tensor, minutes: float) -> None:
        loss.backward()
        average_gradients(self.both, self.plan.workers)
        self.optimizers.step(self.rate_scale(minutes))
        self.state["step"] += 1


class Meter:
    """Running means of the figures that the log shows."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def add(self, **figures: float) -> None:
        for name, value in figures.items():
            if value == value:
                self.values[name] = 0.97 * self.values.get(name, value) + 0.03 * value

    def __str__(self) -> str:
        return " ".join(f"{name} {value:.3f}" for name, value in self.values.items())


def see_step(run: Run, rng: Random, grid: Grid, meter: Meter) -> tuple[Tensor, int]:
    """The loss of one batch of the first stage."""
    batch = pictures(rng, "train", grid, run.plan.images, CHARTS)
    with torch.autocast("cpu", dtype=BF16):
        _, loss, right = run.look(batch)
    meter.add(see=loss.item(), shape=right[0], colour=right[1], letter=(right[2] + right[3]) / 2)
    return loss, run.plan.images


def talk_step(run: Run, rng: Random, grid: Grid, meter: Meter) -> tuple[Tensor, int]:
    """The loss of one batch of the second stage: one image a row, or in one batch of ten two or three."""
    each = rng.choice((2, 2, 3)) if rng.random() < SEVERAL else 1
    rows = run.plan.images // each
    batch = pictures(rng, "train", grid, rows * each, easy=run.plan.easy)
    made: list[Row] = []
    for i in range(rows):
        scenes = batch.scenes[i * each : (i + 1) * each]
        dialogue = (
            about_one(rng, "train", scenes[0], BRANCHES) if each == 1 else about_several(rng, "train", scenes, BRANCHES)
        )
        made.append(row_of(rng, run.words, dialogue, grid))
    tokens = collate(made, run.padding)
    with torch.autocast("cpu", dtype=BF16):
        seen, dense, right = run.look(batch)
        said = run.talk(tokens, seen.flatten(0, 1))
    meter.add(said=said.item(), dense=dense.item(), thing=right[0], glyph=(right[2] + right[3]) / 2)
    meter.add(same=right[4], total=right[7], order=right[10])
    return said + TOLD * dense, rows * each


def text_step(run: Run, meter: Meter) -> Tensor:
    """The loss of a batch of tiny-chat's dialogues, so that they are not forgotten."""
    with torch.autocast("cpu", dtype=BF16):
        loss = run.talk(plain_rows(*next(run.text)), None)
    meter.add(chat=loss.item())
    return loss


def train(run: Run) -> None:
    """Steps until the minutes are spent."""
    plan = run.plan
    beginning = f"{plan.seed} {plan.stage} {run.state['step']}"
    rng, grids = Random(f"{beginning} {run.rank}"), Random(beginning)
    meter, began, spent = run.meter, time.monotonic(), run.state["minutes"]
    first = run.state["images"][plan.stage]
    while run.state["minutes"] < plan.minutes:
        grid = pick_grid(grids)
        if plan.stage == "see":
            loss, images = see_step(run, rng, grid, meter)
        elif run.state["step"] % TEXT_EVERY == TEXT_EVERY - 1:
            loss, images = text_step(run, meter), 0
        elif run.state["step"] % SEE_EVERY == SEE_EVERY - 1:
            loss, images = see_step(run, rng, grid, meter)
        else:
            loss, images = talk_step(run, rng, grid, meter)
        run.update(loss, run.state["minutes"])
        run.state["minutes"] = agreed(spent + (time.monotonic() - began) / 60, plan.workers)
        run.state["images"][plan.stage] += images * plan.workers
        step = run.state["step"]
        if step % 20 == 0 and run.rank == 0:
            speed = (run.state["images"][plan.stage] - first) / (time.monotonic() - began)
            print(f"{plan.stage} {step} min {run.state['minutes']:.1f} img/s {speed:.1f} {meter}", flush=True)
        if step % plan.save_every == 0 and run.rank == 0:
            run.save()
    if run.rank == 0:
        run.save()


def agreed(minutes: float, workers: int) -> float:
    """The first worker's minutes, so that all have one learning rate and stop at the same step."""
    if workers == 1:
        return minutes
    told = torch.tensor(minutes, dtype=torch.float64)
    dist.broadcast(told, 0)
    return told.item()


def work(rank: int, plan: Plan) -> None:
    """One worker's whole run."""
    torch.set_num_threads(1)
    compile_layers()
    if plan.workers > 1:
        join(plan.folder, rank, plan.workers)
    train(Run(plan, rank))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("stage", choices=["see", "talk"])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--matrix-rate", type=float, default=0.012)
    parser.add_argument("--language-rate", type=float, default=0.02)
    parser.add_argument("--other-rate", type=float, default=0.002)
    parser.add_argument("--decay-share", type=float, default=0.6)
    parser.add_argument("--easy", type=float, default=0.0, help="share of talks about one thing")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--start", type=Path, help="an exported folder to go on from where FOLDER has no checkpoint")
    parser.add_argument("--workers", type=int, default=1)
    start_workers(work, Plan(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
