"""Turns a checkpoint into a Hugging Face folder: bf16 weights, tokenizer with images in its chat template, processor.

`python -m training.vision.export FOLDER OUTPUT_DIR` reads FOLDER/checkpoint.pt, and replaces OUTPUT_DIR in one move.
Invariant: the folder loads with Qwen2_5_VLForConditionalGeneration, AutoTokenizer and the image processor, no remote code.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

from training.export import SHARPNESS, swap, write_tokenizer
from training.vision.model import END, IMAGE, LOUDNESS, START, VIDEO, PatchEmbedding, build, tokenizer
from training.vision.patches import LEAST_PIXELS, MOST_PIXELS, processor

CHAT_TEMPLATE = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] in ('image', 'image_url') or 'image' in part or 'image_url' in part %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif part['type'] in ('video', 'video_url') or 'video' in part %}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' }}
            {%- elif 'text' in part %}
                {{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


@torch.no_grad()
def scale(model: Qwen2_5_VLForConditionalGeneration, loudness: float, sharpness: float) -> None:
    """Make images enter so many times as loud, and all logits so many times as large."""
    for parameter in model.model.visual.merger.mlp[2].parameters():
        parameter.mul_(loudness)
    model.model.language_model.norm.weight.mul_(sharpness)


def read(folder: Path) -> tuple[dict[str, Tensor], Tensor]:
    """The weights of an export as training has them, and its patch embedding: to go on where the checkpoint is lost."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    scale(model, 1 / LOUDNESS, 1 / SHARPNESS)
    return model.state_dict(), model.model.visual.patch_embed.proj.weight.sum(2).flatten(1)


def write(folder: Path, output: Path, sharpness: float) -> dict[str, Any]:
    """Write the model folder `output`, which must not exist; return how far its training had come."""
    words: Tokenizer = tokenizer()
    model = build(words)
    saved = torch.load(folder / "checkpoint.pt")
    weights = {n.removeprefix("model."): v for n, v in saved["both"].items() if n.startswith("model.")}
    model.load_state_dict(weights)
    patch = PatchEmbedding()
    patch.load_state_dict({"weight": saved["both"]["patch.weight"]})
    patch.write_to(model)
    scale(model, LOUDNESS, sharpness)
    model.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    stops = [words.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")]
    model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=stops[1], do_sample=True)
    model.save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)
    write_tokenizer(words, output)
    settings = json.loads((output / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["additional_special_tokens"] += [START, END, IMAGE, VIDEO]
    settings["chat_template"] = CHAT_TEMPLATE
    (output / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    processor().save_pretrained(output)
    path = output / "preprocessor_config.json"
    bounds = {"min_pixels": LEAST_PIXELS, "max_pixels": MOST_PIXELS}  # what readers other than transformers 5 look for
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | bounds, indent=2) + "\n", encoding="utf-8"
    )
    return saved["state"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--sharpness", type=float, default=SHARPNESS)
    arguments = parser.parse_args()
    fresh = arguments.output.with_name(arguments.output.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    print(write(arguments.folder, fresh, arguments.sharpness))
    if (card := arguments.output / "MODEL_CARD.md").exists():
        shutil.copy(card, fresh)
    swap(fresh, arguments.output)


if __name__ == "__main__":
    main()
