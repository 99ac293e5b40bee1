"""One stream on a CPU: the rate at which weights are read, against what the memory gives; and against `generate`.

A token of one stream reads every weight once, so bytes of weights a second over the read bandwidth is the share of the
possible that is reached.
"""

from __future__ import annotations

import torch

from kernel_engine.model import Model

from .common import Runner, begin, best_of, clock, random_module, random_prompt, random_tokenizer, ratio, read_bandwidth

PROMPT, NEW, ROUNDS = 32, 24, 4


def main() -> None:
    begin(f"One stream: Qwen2.5-0.5B's shapes, bf16, {PROMPT} prompt tokens, {NEW} new ones")
    plain = random_module()
    model = Model(random_module(), random_tokenizer())
    runner = Runner(model, share_prefixes=False)
    prompt = random_prompt(PROMPT, seed=1)
    ids = torch.tensor([prompt])

    def generate(new: int) -> float:
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        with torch.inference_mode():
            return clock(lambda: plain.generate(ids, attention_mask=torch.ones_like(ids), **options))

    def engine(new: int) -> float:
        return runner.run(prompt, max_new_tokens=new).seconds

    bandwidths = [read_bandwidth()]
    theirs, ours, theirs_first, ours_first = best_of(
        ROUNDS, lambda: generate(NEW), lambda: engine(NEW), lambda: generate(1), lambda: engine(1)
    )
    bandwidths.append(read_bandwidth())
    runner.close()
    step, their_step = (ours - ours_first) / (NEW - 1), (theirs - theirs_first) / (NEW - 1)
    achieved = model.weight_bytes / step
    print(f"read bandwidth {bandwidths[0] / 1e9:.1f} GB/s before, {bandwidths[1] / 1e9:.1f} after")
    print(f"engine {step * 1e3:.1f} ms a token, {achieved / 1e9:.1f} GB/s; generate {their_step * 1e3:.1f} ms a token")
    ratio(their_step / step, 2.0, "generate's time per token over the engine's")
    ratio(achieved / max(bandwidths), 0.75, "bytes read a second over the read bandwidth")


if __name__ == "__main__":
    main()
