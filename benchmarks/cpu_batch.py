"""Sixteen streams on a CPU against `generate` on the same weights: prompts of one length, so that `generate` pads nothing."""

from __future__ import annotations

from .common import Runner, begin, generate, load, random_module, random_prompt, ratio, steps_of

STREAMS, PROMPT, NEW, ROUNDS = 16, 32, 48, 2


def main() -> None:
    begin(f"{STREAMS} streams: Qwen2.5-0.5B's shapes, bf16, {PROMPT} prompt tokens, {NEW} new ones each")
    plain = random_module()
    runner = Runner(load(random_module()), share_prefixes=False)
    prompts = [random_prompt(PROMPT, seed) for seed in range(STREAMS)]

    (first, step), (their_first, their_step) = steps_of(
        ROUNDS,
        lambda: runner.run(*prompts, max_new_tokens=NEW).gaps,
        lambda: runner.on_its_thread(lambda: generate(plain, prompts, NEW)),
    )
    runner.close()
    ours, theirs = first + (NEW - 1) * step, their_first + (NEW - 1) * their_step
    print(f"a token for each stream: engine {step * 1e3:.0f} ms, generate {their_step * 1e3:.0f} ms")
    print(f"engine {STREAMS * NEW / ours:.0f} tokens a second with prefill, generate {STREAMS * NEW / theirs:.0f}")
    print(f"without prefill: {their_step / step:.2f}")
    ratio(theirs / ours, 1.5, "generate's whole time over the engine's")


if __name__ == "__main__":
    main()
