"""N-gram speculation on tiny-chat: forward passes and wall time without drafts and with them, for the same tokens.

The tutorial's JSON is asked for with jump-forward, and with log-probabilities, for which every token is sampled; then questions
are asked that the conversation has answered before; and last what repeats nothing, where drafts can only cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kernel_engine.loading import load_model
from kernel_engine.model import Model
from kernel_engine.request import LogprobRequest
from kernel_engine.server_args import ServerArgs
from kernel_engine.sizing import DRAFTED

from .common import CHARACTER_REGEX, Run, Runner, begin, best_of, ratio
from .jump_forward import NAMES, QUESTION

QUESTIONS = ("Write a haiku.", "Count from 1 to 20.", "List three countries and their capitals.")
JSON: dict[str, Any] = {"regex": CHARACTER_REGEX, "max_new_tokens": 256, "ignore_eos": False}
CHAT: dict[str, Any] = {"max_new_tokens": 120, "ignore_eos": False}


@dataclass(frozen=True)
class Work:
    name: str
    prompts: list[list[int]]
    options: dict[str, Any]
    passes: float
    """The least ratio of forward passes."""

    def run(self, runner: Runner) -> list[Run]:
        return [runner.run(prompt, **self.options) for prompt in self.prompts]


def ask(model: Model, *said: str) -> list[int]:
    """The prompt of a conversation, the user's turn first."""
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    return model.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)  # pyright: ignore[reportReturnType]


def works(model: Model, runner: Runner) -> list[Work]:
    characters = [ask(model, QUESTION.format(name)) for name in NAMES]
    once = [ask(model, question) for question in QUESTIONS]
    answers = [runner.run(prompt, **CHAT).texts[0] for prompt in once]
    again = [ask(model, q, answer, q) for q, answer in zip(QUESTIONS, answers, strict=True)]
    return [
        Work("JSON with jump-forward", characters, JSON, 1.5),
        Work("JSON with log-probabilities", characters, JSON | {"logprobs": LogprobRequest()}, 1.5),
        Work("questions asked again", again, CHAT, 1.5),
        Work("questions asked once", once, CHAT, 1.0),
    ]


def main() -> None:
    begin(f"N-gram speculation: tiny-chat, one stream, greedy, up to {DRAFTED} tokens drafted")
    model = load_model(ServerArgs(model_path="tiny-chat", device="cpu"))
    plain, speculating = Runner(model, threads=1), Runner(model, threads=1, drafted=DRAFTED)
    for work in works(model, plain):
        without, with_drafts = work.run(plain), work.run(speculating)
        assert [run.tokens for run in without] == [run.tokens for run in with_drafts], "a draft changed the text"
        off, on = best_of(
            5,
            lambda work=work: sum(run.seconds for run in work.run(plain)),
            lambda work=work: sum(run.seconds for run in work.run(speculating)),
        )
        tokens = sum(len(run.tokens[0]) for run in without)
        passes = [sum(run.steps for run in runs) for runs in (without, with_drafts)]
        print(
            f"{work.name}: {tokens} tokens in {passes[0]} and {passes[1]} passes, {off * 1e3:.0f} and {on * 1e3:.0f} ms"
        )
        ratio(passes[0] / passes[1], work.passes, f"{work.name}, forward passes without drafts over with them")
        ratio(off / on, 1.0 if work.passes > 1 else 0.95, f"{work.name}, wall time without drafts over with them")
    plain.close()
    speculating.close()


if __name__ == "__main__":
    main()
