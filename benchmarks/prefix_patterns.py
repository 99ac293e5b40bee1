"""The four shapes of traffic that prompt programs make: prompt tokens computed, and wall time, with the prefix cache and without.

Counts are the engine's own and must be the least possible; times are up to each request's first token. Two layers of
Qwen2.5-0.5B's shapes stand for a model: the ratio depends on tokens, not on depth.
"""

from __future__ import annotations

from collections.abc import Callable

from kernel_engine.request import LogprobRequest

from .common import Runner, begin, best_of, load, random_module, random_prompt, ratio

SCORED_FROM = 598


def few_shot(runner: Runner, new: int) -> tuple[float, int]:
    """64 questions of 50 tokens after the same 1,000 tokens of examples, all at once."""
    examples = random_prompt(1000, seed=0)
    run = runner.run(*(examples + random_prompt(50, seed) for seed in range(1, 65)), max_new_tokens=new)
    return run.seconds, run.prompt_computed


def chat(runner: Runner, new: int) -> tuple[float, int]:
    """Eight turns: 500 system tokens, then 200 from the user and 150 in reply each time; a cut reply is filled up."""
    conversation, seconds, computed = random_prompt(500, seed=0), 0.0, 0
    for turn in range(8):
        conversation = conversation + random_prompt(200, 1 + turn)
        run = runner.run(conversation, max_new_tokens=new)
        seconds, computed = seconds + run.seconds, computed + run.prompt_computed
        reply = run.tokens[0]
        conversation = conversation + reply + random_prompt(150 - len(reply), 100 + turn)
    return seconds, computed


def fork(runner: Runner, new: int) -> tuple[float, int]:
    """Eight branches of 20 tokens after the same 2,000 tokens, all at once."""
    stem = random_prompt(2000, seed=0)
    run = runner.run(*(stem + random_prompt(20, seed) for seed in range(1, 9)), max_new_tokens=new)
    return run.seconds, run.prompt_computed


def choices(runner: Runner, new: int) -> tuple[float, int]:
    """Eight choices of 4 tokens after a prompt of 600, scored from two tokens before its end. With the cache, the prompt
    goes first, alone; without, that would only be more work."""
    prompt, seconds, computed = random_prompt(600, seed=0), 0.0, 0
    if runner.engine.scheduler.policy.share_prefixes:
        run = runner.run(prompt, max_new_tokens=0)
        seconds, computed = run.seconds, run.prompt_computed
    branches = [prompt + random_prompt(4, seed) for seed in range(1, 9)]
    run = runner.run(*branches, max_new_tokens=0, logprobs=LogprobRequest(start=SCORED_FROM))
    return seconds + run.seconds, computed + run.prompt_computed


Pattern = Callable[[Runner, int], tuple[float, int]]

PATTERNS: list[tuple[Pattern, int, float]] = [
    (few_shot, 1000 + 64 * 50, 8.0),
    (chat, 500 + 8 * 200 + 7 * 150, 4.0),
    (fork, 2000 + 8 * 20, 5.0),
    (choices, 600 + 8 * 6, 4.0),
]
"""Each with the least number of prompt tokens, one new token each, and the target for the wall time."""


def main() -> None:
    begin("Prefix patterns: two layers of Qwen2.5-0.5B's shapes, vocabulary 4,096, bf16")
    model = load(random_module(num_hidden_layers=2, vocab_size=4096), 4096)
    cached, uncached = (Runner(model, slots=80_000, share_prefixes=share) for share in (True, False))

    for pattern, least, target in PATTERNS:
        counts: dict[Runner, int] = {}

        def seconds(runner: Runner, pattern: Pattern = pattern, counts: dict[Runner, int] = counts) -> float:
            runner.empty_cache()
            taken, counts[runner] = pattern(runner, 1)
            return taken

        on, off = best_of(1, lambda side=seconds: side(cached), lambda side=seconds: side(uncached))
        name = pattern.__name__
        print(f"{name}: {counts[cached]} of {counts[uncached]} prompt tokens computed, {on:.2f} s and {off:.2f} s")
        ratio(counts[cached] / least, 1.0, f"{name}, computed over the least number {least}", at_most=True)
        ratio(off / on, target, f"{name}, wall time without the cache over with it")
    cached.empty_cache()
    computed = chat(cached, 150)[1]
    print(f"chat with its own replies: {computed} prompt tokens computed")
    cached.close()
    uncached.close()
    # Of a reply that is cut by its length, the last token is computed with the next turn.
    ratio(computed / (2100 + 7), 1.0, "chat with its own replies, computed over the least number 2107", at_most=True)


if __name__ == "__main__":
    main()
