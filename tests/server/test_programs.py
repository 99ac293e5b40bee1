"""The programs of docs/programs.md on the bundled model: each runs as it stands, and keeps what its form promises."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import sgl_jupyter as sgl

from ..examples import Example, examples, run_example
from .support import ServerProcess

PROGRAMS = examples("programs.md")


def check_conversation(names: dict[str, Any]) -> None:
    state = names["state"]
    assert [message["role"] for message in state.messages()] == ["system", *["user", "assistant"] * 2]
    first, second = (state.get_meta_info(f"answer_{i}") for i in range(2))
    assert second["cached_tokens"] >= first["prompt_tokens"], "the first turn is not computed again"


def check_few_shot(names: dict[str, Any]) -> None:
    assert all("\n" not in state["capital"] for state in names["states"])
    assert names["accuracy"] == sum(names["right"]) / 4
    cached = [state.get_meta_info("capital")["cached_tokens"] for state in names["states"]]
    assert sorted(cached)[-1] > 40, "the examples are computed once"


def check_self_consistency(names: dict[str, Any]) -> None:
    state = names["state"]
    assert len(state["reasoning"]) == len(state["answer"]) == 5
    votes = [answer.strip() for answer in state["answer"]]
    assert votes.count(state["vote"]) == max(map(votes.count, votes))


def check_skeleton(names: dict[str, Any]) -> None:
    assert len(names["state"]["detail"]) == 3
    assert len(names["article"].splitlines()) >= 3


def check_tree(names: dict[str, Any]) -> None:
    assert 0 < names["best"]["score"] < 1
    steps = [message["content"] for message in names["best"]["steps"] if message["role"] == "user"]
    assert [bool(re.fullmatch(r"Propose step \d\.", step)) for step in steps[1:5]] == [True, False] * 2


def check_react(names: dict[str, Any]) -> None:
    text = names["state"].text()
    for numbers, total in re.findall(r"Input: (\S+)\nObservation: (\d+)", text):
        assert sum(map(int, numbers.split("+"))) == int(total)
    assert "Action: " in text
    assert "\nAnswer: " in text


def check_agent(names: dict[str, Any]) -> None:
    state = names["state"]
    messages = [message["content"] for message in state.messages()]
    results = [text for text in messages if text.startswith(("It is sunny in ", "The ")) and text.endswith(".")]
    assert len(results) == sum(text in ("Tool: weather", "Tool: calendar") for text in messages)
    assert state["tool"] in ("weather", "calendar", "none")
    assert messages[-1] == "So " + state["answer"]


def check_judge(names: dict[str, Any]) -> None:
    assert len(names["state"]["judgement"]) == 3
    assert names["state"]["grade"] in "ABCD"


def check_regex(names: dict[str, Any]) -> None:
    assert set(names["described"]) == {"name", "house", "alive"}


def check_schema(names: dict[str, Any]) -> None:
    event = names["event"]
    assert isinstance(event, names["Event"])
    assert isinstance(event.seats, int)
    assert event.day in ("Monday", "Friday", "Sunday")


def check_routing(names: dict[str, Any]) -> None:
    assert all(state["answer"] for state in names["states"])
    assert all(1 / 3 <= share <= 1 for share in names["confidence"])


def check_tips(names: dict[str, Any]) -> None:
    assert names["state"]["summary"]
    assert len(names["state"].messages()) == 5  # with the template's system prompt


def check_chain(names: dict[str, Any]) -> None:
    state = names["state"]
    parts = [f"{start}{state[name]}." for start, name in CHAIN]
    assert state["story"] == " ".join(parts)


CHAIN = (("Once upon a time ", "beginning"), ("Then ", "middle"), ("In the end ", "ending"))


def check_citations(names: dict[str, Any]) -> None:
    assert names["state"]["cites"] in names["PASSAGES"]
    assert re.search(r" \[[12]\]", names["state"].text())


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "A conversation in turns": check_conversation,
    "A few-shot benchmark": check_few_shot,
    "Self-consistency": check_self_consistency,
    "Skeleton of thought": check_skeleton,
    "Tree of thought": check_tree,
    "ReAct": check_react,
    "An agent with tools": check_agent,
    "Judging: branch, solve, merge": check_judge,
    "JSON by a regular expression": check_regex,
    "JSON by a schema": check_schema,
    "Routing": check_routing,
    "Parallel tips": check_tips,
    "A chain": check_chain,
    "Answers with citations": check_citations,
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.heading)
def test_a_program_of_the_literature(program: Example, server: ServerProcess) -> None:
    names: dict[str, Any] = {"sgl": sgl, "__name__": "__main__"}
    with sgl.default_backend(sgl.RuntimeEndpoint(server.url)):
        run_example(program, "programs.md", names)
        CHECKS[program.heading](names)


def test_every_program_is_checked() -> None:
    assert [program.heading for program in PROGRAMS] == list(CHECKS)


def test_ub33_ignoring_the_models_end_does_not_ignore_the_programs_own(server: ServerProcess) -> None:
    @sgl.function
    def program(s: Any, ends: list[int]) -> None:
        s += sgl.user("Hello") + sgl.assistant(
            sgl.gen("x", max_tokens=8, temperature=0, ignore_eos=True, stop_token_ids=ends, return_logprob=True)
        )

    endpoint = sgl.RuntimeEndpoint(server.url)
    free = program.run([], backend=endpoint).get_meta_info("x")
    assert free is not None
    token = free["output_token_logprobs"][3][1]
    first = [entry[1] for entry in free["output_token_logprobs"]].index(token)
    stopped = program.run([token], backend=endpoint).get_meta_info("x")
    assert stopped is not None
    assert stopped["finish_reason"] == {"type": "stop", "matched": token}
    assert stopped["completion_tokens"] == first + 1
