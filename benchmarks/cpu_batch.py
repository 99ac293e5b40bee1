"""Sixteen streams on a CPU against `generate` on the same weights: prompts of one length, so that `generate` pads nothing."""

from __future__ import annotations

import torch

from kernel_engine.model import Model

from .common import Runner, begin, best_of, clock, random_module, random_prompt, random_tokenizer, ratio

STREAMS, PROMPT, NEW, ROUNDS = 16, 32, 16, 3


def main() -> None:
    begin(f"{STREAMS} streams: Qwen2.5-0.5B's shapes, bf16, {PROMPT} prompt tokens, {NEW} new ones each")
    plain = random_module()
    runner = Runner(Model(random_module(), random_tokenizer()), share_prefixes=False)
    prompts = [random_prompt(PROMPT, seed) for seed in range(STREAMS)]
    ids = torch.tensor(prompts)

    def generate(new: int) -> float:
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        with torch.inference_mode():
            return clock(lambda: plain.generate(ids, attention_mask=torch.ones_like(ids), **options))

    def engine(new: int) -> float:
        return runner.run(*prompts, max_new_tokens=new).seconds

    theirs, ours, theirs_first, ours_first = best_of(
        ROUNDS, lambda: generate(NEW), lambda: engine(NEW), lambda: generate(1), lambda: engine(1)
    )
    runner.close()
    step, their_step = (ours - ours_first) / (NEW - 1), (theirs - theirs_first) / (NEW - 1)
    print(f"a token for each stream: engine {step * 1e3:.0f} ms, generate {their_step * 1e3:.0f} ms")
    print(f"engine {STREAMS * NEW / ours:.0f} tokens a second with prefill, generate {STREAMS * NEW / theirs:.0f}")
    print(f"without prefill: {their_step / step:.2f}")
    ratio(theirs / ours, 1.5, "generate's whole time over the engine's")


if __name__ == "__main__":
    main()
