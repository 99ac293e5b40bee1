"""Measures tiny-vision on seeds, wordings, words and fonts kept out of training, greedily and at temperature 1.

`python -m training.vision.evaluate [MODEL_DIR]` goes through the image processor and `generate`, as any user does. It
prints a table and exits with 1 where a kind stays below its bar.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

from training.dialogue import cut_at, generation_points
from training.vision.dialogues import about_one, about_several
from training.vision.drawing import paint
from training.vision.model import IMAGE
from training.vision.patches import pick_grid, sizes_by_grid
from training.vision.scenes import FORMS, Scene, make_scene

BUNDLED = Path(__file__).parents[2] / "kernel_engine" / "bundled" / "tiny-vision"
END = "<|im_end|>"
# The least share of right answers, greedy and at temperature 1 alike; other kinds are reported only.
BARS = {"describe: 1": 0.95, "colour: 1": 0.95, "shape: 1": 0.95, **{f"count: {n}": 0.9 for n in range(6)}}


@dataclass(frozen=True)
class Question:
    """A prompt with its images, and the text wanted."""

    kind: str
    images: list[Image.Image]
    prompt: str
    wanted: str


def questions(each: int, seed: int) -> Iterator[Question]:
    """Questions on new images until every kind met has `each`, or all have had a fair chance."""
    rng, had = Random(seed), defaultdict[str, int](int)
    for _ in range(each * 14):
        several = rng.random() < 0.12
        grid = pick_grid(rng)
        scenes: list[Scene] = []
        for _ in range(2 if several else 1):
            form = rng.choices(list(FORMS), list(FORMS.values()))[0]
            scenes.append(make_scene(rng, "held_out", rng.choice(sizes_by_grid()[grid]), grid, form))
        images = [paint(rng, scene) for scene in scenes]
        made = about_several(rng, "held_out", scenes, 2) if several else about_one(rng, "held_out", scenes[0], 4)
        for kind, segments in made.branches:
            if had[kind] >= each:
                continue
            had[kind] += 1
            whole = [*made.beginning, *segments]
            prompt, wanted = cut_at(whole, generation_points(whole)[-1])
            yield Question(kind, images, prompt, wanted.split(END)[0])


class Model:
    """The checkpoint with batched plain generation on images."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)

    def inputs(self, questions: list[Question]) -> dict[str, Any]:
        """What `generate` takes: each image token repeated for its cells, left padding."""
        pixels = self.processor([image for q in questions for image in q.images], return_tensors="pt")
        cells = iter((pixels["image_grid_thw"].prod(-1) // 4).tolist())
        texts: list[str] = []
        for question in questions:
            first, *rest = question.prompt.split(IMAGE)
            texts.append(first + "".join(IMAGE * next(cells) + part for part in rest))
        tokens = self.tokenizer(texts, return_tensors="pt", padding=True)
        kinds = (tokens["input_ids"] == self.model.config.image_token_id).int()
        return {
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "mm_token_type_ids": kinds,
            **pixels,
        }

    def answers(self, asked: list[Question], sampled: bool, rows: int = 48) -> list[str]:
        """The generated texts, up to the end of the turn."""
        how = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0} if sampled else {"do_sample": False}
        found: list[str] = []
        for start in range(0, len(asked), rows):
            inputs = self.inputs(asked[start : start + rows])
            output = self.model.generate(**inputs, max_new_tokens=48, **how)
            for row in output[:, inputs["input_ids"].shape[1] :]:
                found.append(self.tokenizer.decode(row).split(END)[0].strip())
        return found


def report(asked: list[Question], answers: list[str], show: int) -> dict[str, float]:
    """Print the accuracy of each kind and some of the failures; return the accuracies."""
    result: dict[str, float] = {}
    for kind in sorted({q.kind for q in asked}):
        pairs = [(q, a) for q, a in zip(asked, answers, strict=True) if q.kind == kind]
        wrong = [(q, a) for q, a in pairs if a != q.wanted.strip()]
        result[kind] = 1 - len(wrong) / len(pairs)
        print(f"  {kind:20} {result[kind]:7.1%} of {len(pairs)}")
        for question, answer in wrong[:show]:
            print(f"      {question.prompt[-70:]!r}\n        wanted {question.wanted!r}\n        got    {answer!r}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=BUNDLED)
    parser.add_argument("--each", type=int, default=400, help="questions of each kind, at most")
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--show", type=int, default=0, help="failures to print of each kind")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--greedy", action="store_true", help="greedy only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    model = Model(arguments.model)
    asked = list(questions(arguments.each, arguments.seed))
    low: list[str] = []
    for sampled in (False,) if arguments.greedy else (False, True):
        print("temperature 1:" if sampled else "greedy:")
        result = report(asked, model.answers(asked, sampled), arguments.show)
        low += [f"{kind} {share:.1%}" for kind, share in result.items() if share < BARS.get(kind, 0.0)]
    if low:
        sys.exit("below the bar: " + ", ".join(low))


if __name__ == "__main__":
    main()
