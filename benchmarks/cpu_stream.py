"""One stream on a CPU: the rate at which weights are read, against what the memory gives; and against `generate`.

A token of one stream reads every weight once, so bytes of weights a second over the read bandwidth is the share of the
possible that is reached.
"""

from __future__ import annotations

from .common import (
    Runner,
    begin,
    generate,
    load,
    random_module,
    random_prompt,
    ratio,
    read_bandwidth,
    steps_of,
)

PROMPT, NEW, ROUNDS = 32, 24, 4


def main() -> None:
    begin(f"One stream: Qwen2.5-0.5B's shapes, bf16, {PROMPT} prompt tokens, {NEW} new ones")
    plain = random_module()
    model = load(random_module())
    runner = Runner(model, share_prefixes=False)
    prompt = random_prompt(PROMPT, seed=1)

    before = runner.on_its_thread(read_bandwidth)
    (_, step), (_, their_step) = steps_of(
        ROUNDS,
        lambda: runner.run(prompt, max_new_tokens=NEW).gaps,
        lambda: runner.on_its_thread(lambda: generate(plain, [prompt], NEW)),
    )
    after = runner.on_its_thread(read_bandwidth)
    runner.close()
    achieved = model.weight_bytes / step
    print(f"read bandwidth {before / 1e9:.1f} GB/s before, {after / 1e9:.1f} after")
    print(f"engine {step * 1e3:.1f} ms a token, {achieved / 1e9:.1f} GB/s; generate {their_step * 1e3:.1f} ms a token")
    ratio(their_step / step, 2.0, "generate's time per token over the engine's")
    ratio(achieved / max(before, after), 0.75, "bytes read a second over the read bandwidth")


if __name__ == "__main__":
    main()
