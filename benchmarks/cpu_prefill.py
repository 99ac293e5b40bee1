"""Prompts on a CPU against `generate`, up to the first token: one prompt, and eight of different lengths, which `generate` pads."""

from __future__ import annotations

from .common import Runner, begin, best_of, clock, generate, load, random_module, random_prompt, ratio

ONE, RAGGED, ROUNDS = 512, (32, 64, 64, 96, 128, 160, 256, 384), 3


def main() -> None:
    begin(f"Prefill: Qwen2.5-0.5B's shapes, bf16; a prompt of {ONE} tokens; prompts of {', '.join(map(str, RAGGED))}")
    plain = random_module()
    runner = Runner(load(random_module()), share_prefixes=False)
    one = [random_prompt(ONE, seed=1)]
    ragged = [random_prompt(length, seed) for seed, length in enumerate(RAGGED)]

    def hugging_face(prompts: list[list[int]]) -> float:
        return runner.on_its_thread(lambda: clock(lambda: generate(plain, prompts, 1)))

    def engine(prompts: list[list[int]]) -> float:
        return runner.run(*prompts, max_new_tokens=1).seconds

    theirs, ours, their_ragged, our_ragged = best_of(
        ROUNDS, lambda: hugging_face(one), lambda: engine(one), lambda: hugging_face(ragged), lambda: engine(ragged)
    )
    runner.close()
    print(f"one prompt: engine {ONE / ours:.0f} tokens a second, generate {ONE / theirs:.0f}")
    total = sum(RAGGED)
    print(f"eight prompts: engine {total / our_ragged:.0f} tokens a second, generate {total / their_ragged:.0f}")
    ratio(their_ragged / our_ragged, 1.1, "eight ragged prompts, generate's time over the engine's")
    ratio(theirs / ours, 1.1, "one prompt, generate's time over the engine's")


if __name__ == "__main__":
    main()
