"""Measures tiny-chat on wordings kept out of training, greedily and at temperature 1, kind by kind.

`python -m training.evaluate [MODEL_DIR]` prints a table and exits with 1 where a kind stays below its bar.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from training.corpus import KINDS, system_prompt
from training.dialogue import cut_at, generation_points, render
from training.facts import countries, talk
from training.kinds import capitals, chat
from training.kinds.memory import Memory

BUNDLED = Path(__file__).parent.parent / "kernel_engine" / "bundled" / "tiny-chat"
# The least share of right answers, greedy and at temperature 1 alike.
BARS = {"capital": 0.95, "lists": 0.9, "tool: choice": 0.95, "tool: input": 0.5, "tips": 0.6, "character json": 0.95}
OTHER_BAR = 0.7
END = "<|im_end|>"


@dataclass(frozen=True)
class Question:
    """A prompt kept out of training, and how to judge what is generated from it."""

    kind: str
    prompt: str
    wanted: str
    judge: Callable[[str, str, str], bool]


def same(prompt: str, wanted: str, answer: str) -> bool:
    return answer.strip() == wanted.strip()


def same_tool(prompt: str, wanted: str, answer: str) -> bool:
    """The right tool, whatever follows it, or the same text as an expression or key word."""
    return answer.strip(" .").lower() == wanted.strip(" .").lower()


def any_answer(prompt: str, wanted: str, answer: str) -> bool:
    """Any of the answers of the row that holds the wanted one."""
    return any(wanted in row.answers and answer in row.answers for row in talk())


def honest(prompt: str, wanted: str, answer: str) -> bool:
    """Any of the model's ways to say that it does not know."""
    return answer in (chat.HONEST, chat.TOO_HARD, capitals.UNKNOWN_COUNTRY)


ITEM = re.compile(r"^\d+\. (.+) - (.+)$", re.MULTILINE)


def good_list(prompt: str, wanted: str, answer: str) -> bool:
    """As many countries as asked for, each with its capital, none of them named before."""
    known = {country.bare: country.capital for country in countries()}
    items, before = ITEM.findall(answer), {name for name, _ in ITEM.findall(prompt)}
    names = [name for name, _ in items]
    right = all(known.get(name) == city for name, city in items)
    return right and len(names) == len(ITEM.findall(wanted)) and len({*names} | before) == len(names) + len(before)


JUDGES = {"tool": same_tool, "lists": good_list, "small talk": any_answer, "unknown": honest, "unknown capital": honest}


def every_capital(rng: Random) -> Iterator[Question]:
    """Each country once, by its name, in a wording kept out of training."""
    for country in countries():
        text = capitals.ASK.pick(rng, "held_out").format(c=country.name)
        messages = [*system_prompt(rng, "held_out"), capitals.user(text), capitals.assistant(capitals.said(""))]
        segments = render(messages)
        prompt, _ = cut_at(segments, generation_points(segments)[-1])
        yield Question("capital", prompt, capitals.sentence(country), same)


def questions(each: int, seed: int) -> Iterator[Question]:
    """Every capital, and `each` questions of every kind, one dialogue long."""
    rng = Random(seed)
    yield from every_capital(rng)
    for name, (kind, _) in KINDS.items():
        for _ in range(each):
            segments = render([*system_prompt(rng, "held_out"), *kind(rng, "held_out", Memory())])
            for turn, point in enumerate(generation_points(segments)):
                prompt, wanted = cut_at(segments, point)
                part = f"{name}: {('choice', 'input')[turn]}" if name == "tool" else name
                yield Question(part, prompt, wanted.split(END)[0], JUDGES.get(name, same))


class Model:
    """The checkpoint with batched plain generation."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def answers(self, prompts: list[str], sampled: bool, rows: int = 64) -> list[str]:
        """The generated texts, up to the end of the turn; prompts of like length run together."""
        found: dict[int, str] = {}
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        how = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0} if sampled else {"do_sample": False}
        for start in range(0, len(order), rows):
            part = order[start : start + rows]
            inputs = self.tokenizer([prompts[i] for i in part], return_tensors="pt", padding=True)
            output = self.model.generate(**inputs, max_new_tokens=256, **how)
            for i, row in zip(part, output[:, inputs["input_ids"].shape[1] :], strict=True):
                found[i] = self.tokenizer.decode(row).split(END)[0]
        return [found[i] for i in range(len(prompts))]


def report(asked: list[Question], answers: list[str], show: int) -> dict[str, float]:
    """Print the accuracy of each kind and some of the failures; return the accuracies."""
    result: dict[str, float] = {}
    for kind in dict.fromkeys(q.kind for q in asked):
        pairs = [(q, a) for q, a in zip(asked, answers, strict=True) if q.kind == kind]
        wrong = [(q, a) for q, a in pairs if not q.judge(q.prompt, q.wanted, a)]
        result[kind] = 1 - len(wrong) / len(pairs)
        print(f"  {kind:20} {result[kind]:7.1%} of {len(pairs)}")
        for question, answer in wrong[:show]:
            print(f"      {question.prompt[-90:]!r}\n        wanted {question.wanted!r}\n        got    {answer!r}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=BUNDLED)
    parser.add_argument("--each", type=int, default=60, help="questions of each kind")
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--show", type=int, default=0, help="failures to print of each kind")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    model = Model(arguments.model)
    asked = list(questions(arguments.each, arguments.seed))
    low: list[str] = []
    for sampled in (False, True):
        print("temperature 1:" if sampled else "greedy:")
        result = report(asked, model.answers([q.prompt for q in asked], sampled), arguments.show)
        low += [f"{kind} {share:.1%}" for kind, share in result.items() if share < BARS.get(kind, OTHER_BAR)]
    if low:
        sys.exit("below the bar: " + ", ".join(low))


if __name__ == "__main__":
    main()
