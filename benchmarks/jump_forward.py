"""The tutorial's JSON regex on tiny-chat: forward passes per output token, and wall time with jump-forward and without.

The two sides may write different texts, so time is compared per character.
"""

from __future__ import annotations

from kernel_engine.loading import load_model
from kernel_engine.server_args import ServerArgs

from .common import CHARACTER_REGEX, Run, Runner, begin, best_of, ratio, without_jump_forward

NAMES = ("Harry Potter", "Hermione Granger", "Ron Weasley", "Luna Lovegood")
QUESTION = "{} is a character in Harry Potter. Please fill in the following information about this character."


def main() -> None:
    begin("Jump-forward: the tutorial's character regex, tiny-chat, one stream, greedy")
    model = load_model(ServerArgs(model_path="tiny-chat", device="cpu"))
    runner = Runner(model, threads=1)
    prompts = [
        model.tokenizer.apply_chat_template(
            [{"role": "user", "content": QUESTION.format(name)}], add_generation_prompt=True, return_dict=False
        )
        for name in NAMES
    ]

    def runs() -> list[Run]:
        return [
            runner.run(prompt, regex=CHARACTER_REGEX, max_new_tokens=256, ignore_eos=False)  # pyright: ignore[reportArgumentType]
            for prompt in prompts
        ]

    def per_character() -> float:
        done = runs()
        return sum(run.seconds for run in done) / sum(len(run.texts[0]) for run in done)

    def plain() -> float:
        with without_jump_forward():
            return per_character()

    on, off = best_of(5, per_character, plain)
    done = runs()
    tokens = sum(len(run.tokens[0]) for run in done)
    passes = sum(run.steps for run in done)
    runner.close()
    print(done[0].texts[0])
    print(f"{passes} forward passes for {tokens} tokens; {on * 1e6:.0f} and {off * 1e6:.0f} µs a character")
    ratio(passes / tokens, 0.6, "forward passes per output token", at_most=True)
    ratio(off / on, 1.4, "wall time per character without jump-forward over with it")


if __name__ == "__main__":
    main()
