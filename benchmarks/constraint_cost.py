"""What a JSON schema costs per decoding step, against no constraint: one stream and 64.

Jump-forward is off on both sides: it saves steps, and here it is their price that is asked for.
"""

from __future__ import annotations

import json
from typing import Any

from .common import Runner, begin, best_of, load, random_module, random_prompt, ratio, without_jump_forward

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "house": {"enum": ["Gryffindor", "Hufflepuff", "Ravenclaw", "Slytherin"]},
            "age": {"type": "integer"},
            "wand": {"type": "object", "properties": {"wood": {"type": "string"}}, "required": ["wood"]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "house", "age", "wand", "tags"],
    }
)
CASES = ((1, 24, 5, 1.03), (64, 8, 3, 1.10))
"""Streams, new tokens, rounds, target."""


def main() -> None:
    begin("Constraint cost: a JSON schema, Qwen2.5-0.5B's shapes with its vocabulary, bf16, 8 prompt tokens")
    runner = Runner(load(random_module()), share_prefixes=False)
    for streams, new, rounds, target in CASES:
        prompts = [random_prompt(8, seed) for seed in range(streams)]

        def step(prompts: list[list[int]] = prompts, new: int = new, **constraint: Any) -> float:
            first = runner.run(*prompts, max_new_tokens=1, **constraint)
            run = runner.run(*prompts, max_new_tokens=new, **constraint)
            return (run.seconds - first.seconds) / (run.steps - first.steps)

        with without_jump_forward():
            constrained, free = best_of(rounds, lambda: step(json_schema=SCHEMA), step)
        print(f"{streams} streams: {free * 1e3:.1f} ms a step, {constrained * 1e3:.1f} ms with the schema")
        ratio(constrained / free, target, f"step with the schema over without it, {streams} streams", at_most=True)
    runner.close()


if __name__ == "__main__":
    main()
