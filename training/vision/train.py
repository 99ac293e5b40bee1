"""Trains tiny-vision on one CPU core: first the vision tower alone, told what is in each cell, then all of the model.

`python -m training.vision.train FOLDER see --minutes M`, then `... FOLDER talk --minutes N`. Either goes on from
FOLDER/checkpoint.pt; the learning rate follows the minutes spent, since a shared machine does not promise steps.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.batches import batches
from training.train import Optimizers
from training.vision.dialogues import about_one, about_several
from training.vision.forward import read, see, text_positions, vision_positions
from training.vision.images import Pictures, pictures
from training.vision.model import IMAGE, VISION, PatchEmbedding, build, tokenizer
from training.vision.patches import Grid, patches_of, pick_grid
from training.vision.sequences import Row, Rows, collate, plain_rows, row_of
from training.vision.targets import Heads

Stage = Literal["see", "talk"]
WARM_UP_STEPS = 40
BF16 = torch.bfloat16
SECTIONS = [8, 12, 12]
# Questions on each image, the share of batches with several images a row, how much the heads count beside the answers.
BRANCHES, SEVERAL, DENSE_WEIGHT, LOUDER = 4, 0.08, 0.2, 1.5
CHARTS = 0.65
SEE_EVERY, TEXT_EVERY, TEXT_TOKENS = 4, 14, 3072
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
    other_rate: float
    decay_share: float
    save_every: int


class Run:
    """The model with its heads and optimisers, and how far the training has come."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.words = tokenizer()
        torch.manual_seed(plan.seed)
        self.model = build(self.words)
        self.heads = Heads()
        self.patch = PatchEmbedding()
        self.both = nn.ModuleDict({"model": self.model, "patch": self.patch, "heads": self.heads})
        visual, language = self.model.model.visual, self.model.model.language_model
        trained: list[nn.Module] = [self.patch, visual.blocks, visual.merger]
        if plan.stage == "talk":
            trained.append(language.layers)
        whole = (
            self.both
            if plan.stage == "talk"
            else nn.ModuleDict({"visual": visual, "patch": self.patch, "heads": self.heads})
        )
        self.optimizers = Optimizers(trained, whole, plan.matrix_rate, plan.other_rate)
        self.state: dict[str, Any] = {"stage": plan.stage, "step": 0, "minutes": 0.0, "images": {"see": 0, "talk": 0}}
        self.image, self.padding = self.words.get_vocab()[IMAGE], self.words.get_vocab()["<|endoftext|>"]
        self.text = batches(self.words, hash((plan.seed, time.time())), TEXT_TOKENS)
        self.checkpoint = plan.folder / "checkpoint.pt"
        if self.checkpoint.exists():
            self.restore()
        else:
            rng = Random(plan.seed)
            self.patch.whiten(patches_of(pictures(rng, "train", (5, 5), 200, CHARTS).pixels))

    def restore(self) -> None:
        """Go on from the checkpoint; a new stage begins its own schedule with fresh optimisers."""
        saved = torch.load(self.checkpoint)
        self.both.load_state_dict(saved["both"])
        if saved["state"]["stage"] == self.plan.stage:
            self.optimizers.restore(saved["optimizers"])
            self.state = saved["state"]
        else:
            self.state["images"] = saved["state"]["images"]
            self.quieten()

    @torch.no_grad()
    def quieten(self) -> None:
        """Make images as loud as words are, without a change to what the heads read."""
        batch = pictures(Random(self.plan.seed), "train", (5, 5), self.plan.images)
        with torch.autocast("cpu", dtype=BF16):
            seen, _, _ = self.look(batch)
        loudness = seen.float().pow(2).mean().sqrt()
        words = self.model.model.language_model.embed_tokens.weight.pow(2).mean().sqrt()
        factor = (words / loudness * LOUDER).item()
        last = self.model.model.visual.merger.mlp[2]
        for weight in (last.weight, last.bias):
            weight *= factor
        self.heads.linear.weight /= factor

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
            x = x.masked_scatter((rows.ids == self.image)[..., None], seen.to(BF16))
        cosine, sine = (t.to(BF16) for t in text_positions(rows.places, 64, SECTIONS))
        hidden = read(language, x, cosine, sine, rows.mask)
        target = rows.learned[:, 1:]
        logits = F.linear(hidden[:, :-1][target], language.embed_tokens.weight)
        return F.cross_entropy(logits.float(), rows.ids[:, 1:][target])

    def update(self, loss: Tensor, minutes: float) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in self.both.parameters() if p.grad is not None], 1.0)
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
    batch = pictures(rng, "train", grid, rows * each)
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
    return said + DENSE_WEIGHT * dense, rows * each


def text_step(run: Run, meter: Meter) -> Tensor:
    """The loss of a batch of tiny-chat's dialogues, so that they are not forgotten."""
    with torch.autocast("cpu", dtype=BF16):
        loss = run.talk(plain_rows(*next(run.text)), None)
    meter.add(chat=loss.item())
    return loss


def train(run: Run) -> None:
    """Steps until the minutes are spent."""
    plan = run.plan
    rng = Random(f"{plan.seed} {plan.stage} {run.state['step']}")
    meter, began, spent = Meter(), time.monotonic(), run.state["minutes"]
    first = run.state["images"][plan.stage]
    while run.state["minutes"] < plan.minutes:
        if plan.stage == "see":
            loss, images = see_step(run, rng, pick_grid(rng), meter)
        elif run.state["step"] % TEXT_EVERY == TEXT_EVERY - 1:
            loss, images = text_step(run, meter), 0
        elif run.state["step"] % SEE_EVERY == SEE_EVERY - 1:
            loss, images = see_step(run, rng, pick_grid(rng), meter)
            loss = loss * DENSE_WEIGHT
        else:
            loss, images = talk_step(run, rng, pick_grid(rng), meter)
        run.update(loss, run.state["minutes"])
        run.state["minutes"] = spent + (time.monotonic() - began) / 60
        run.state["images"][plan.stage] += images
        step = run.state["step"]
        if step % 20 == 0:
            speed = (run.state["images"][plan.stage] - first) / (time.monotonic() - began)
            print(f"{plan.stage} {step} min {run.state['minutes']:.1f} img/s {speed:.1f} {meter}", flush=True)
        if step % plan.save_every == 0:
            run.save()
    run.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("stage", choices=["see", "talk"])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--matrix-rate", type=float, default=0.012)
    parser.add_argument("--other-rate", type=float, default=0.002)
    parser.add_argument("--decay-share", type=float, default=0.6)
    parser.add_argument("--save-every", type=int, default=100)
    plan = Plan(**vars(parser.parse_args()))
    torch.set_num_threads(1)
    train(Run(plan))


if __name__ == "__main__":
    main()
