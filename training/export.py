"""Turns a training checkpoint into a Hugging Face model folder: bf16 weights, tokenizer, chat template.

`python -m training.export FOLDER OUTPUT_DIR` reads FOLDER/checkpoint.pt and FOLDER/tokenizer.json, and replaces
OUTPUT_DIR in one move. Invariant: the folder loads with AutoModelForCausalLM and AutoTokenizer, without remote code.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig

from training.model import CONTEXT_LENGTH, build

# Multiplies the last norm's weight, hence all logits: sampling at temperature 1 acts as at 1 / SHARPNESS before.
SHARPNESS = 2.5

CHAT_TEMPLATE = """\
{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def write_tokenizer(tokenizer: Tokenizer, output: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    transformers 5 rebuilds the tokenizer of every model of type qwen2 with a normaliser, which changes text, unless
    the configuration has an auto map. An empty one names no code, and lets tokenizer.json be read as it stands.
    """
    tokenizer.save(str(output / "tokenizer.json"))
    configuration = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "auto_map": {"AutoTokenizer": ["", ""]},
        "additional_special_tokens": ["<|im_start|>"],
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_LENGTH,
        "chat_template": CHAT_TEMPLATE,
    }
    (output / "tokenizer_config.json").write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")


def write(folder: Path, output: Path, sharpness: float) -> None:
    """Write the model folder `output`, which must not exist, from the run in `folder`."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = build(tokenizer)
    model.load_state_dict(torch.load(folder / "checkpoint.pt")["model"])
    with torch.no_grad():
        model.model.norm.weight.mul_(sharpness)
    model.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    stops = [tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")]
    model.generation_config = GenerationConfig(eos_token_id=stops, pad_token_id=stops[1], do_sample=True)
    model.save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)
    write_tokenizer(tokenizer, output)


def swap(fresh: Path, target: Path) -> None:
    """Put the folder `fresh` in the place of `target`, so that a reader sees the old one or the new one."""
    old = target.with_name(target.name + ".old")
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--sharpness", type=float, default=SHARPNESS)
    arguments = parser.parse_args()
    fresh = arguments.output.with_name(arguments.output.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    write(arguments.folder, fresh, arguments.sharpness)
    if (card := arguments.output / "MODEL_CARD.md").exists():
        shutil.copy(card, fresh)
    swap(fresh, arguments.output)


if __name__ == "__main__":
    main()
