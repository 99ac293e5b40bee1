"""Every combination of prefix cache, chunked prefill, retraction, jump-forward and speculation gives transformers' greedy tokens.

All meet the same traffic: prompts of many lengths that come one by one, forks of one stem, one that repeats itself, one that
is aborted, and constrained ones. Each combination must also have happened, so that none passes for lack of an occasion.
"""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any

import pytest
import regex
from transformers import PreTrainedModel

from kernel_engine.grammar import jump_forward

from .support import Oracle, StepEngine, byte_tokenizer, random_module

NEW = 24
PATTERN = r"(the first|a second) of them is (red|blue|green), and so on [abc]{3}\."
"""Most of it is forced, and nothing can follow its end."""
COMBINATIONS = [*itertools.product([False, True], repeat=5)]
NAMES = ("cached", "chunked", "retracted", "jumping", "speculating")


class ConstrainedOracle(Oracle):
    """Greedy tokens of transformers under `PATTERN`, of which every one that may come next is tried."""

    @functools.cached_property
    def _characters(self) -> dict[int, str]:
        tokenizer = byte_tokenizer()
        return {token: tokenizer.decode([token]) for token in range(256)}

    @functools.cache  # noqa: B019 - it lives as long as the tests
    def constrained(self, prompt: tuple[int, ...]) -> list[int]:
        tokens: list[int] = []
        text = ""
        while len(tokens) < self.LONGEST * 2 and not text.endswith("."):
            allowed = [t for t, c in self._characters.items() if regex.fullmatch(PATTERN, text + c, partial=True)]
            scores = self.logprobs([*prompt, *tokens])[-1][allowed]
            tokens.append(allowed[int(scores.argmax())])
            text += self._characters[tokens[-1]]
        return tokens


@pytest.fixture(scope="module")
def oracle() -> ConstrainedOracle:
    return ConstrainedOracle(random_module())


@pytest.fixture(scope="module")
def module() -> PreTrainedModel:
    return random_module()


def traffic() -> tuple[list[list[int]], list[list[int]]]:
    """Free and constrained prompts."""
    rng = random.Random(3)
    stem, *ragged = ([rng.randrange(250) for _ in range(length)] for length in (20, 1, 17, 2, 29))
    forks = [[*stem, n, n + 1] for n in range(3)]
    repeating = [5, 6, 7, 8] * 6
    return [*ragged, repeating, *forks], [[*stem, 99], [3, 1, 4], ragged[1]]


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda on: "+".join(itertools.compress(NAMES, on)) or "plain")
def test_the_tokens_are_transformers(
    module: PreTrainedModel, oracle: ConstrainedOracle, combination: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
):
    cached, chunked, retracted, jumping, speculating = combination
    jumps: list[list[int]] = []

    def jump(*arguments: Any) -> list[int]:
        jumps.append(jump_forward(*arguments) if jumping else [])
        return jumps[-1]

    monkeypatch.setattr("kernel_engine.collect.jump_forward", jump)
    engine = StepEngine(
        module, slots=128 if retracted else 2048, rows=8, chunk=7 if chunked else 512, share_prefixes=cached,
        conservativeness=0.0, drafted=4 if speculating else 0,
    )  # fmt: skip
    free, constrained = traffic()
    rids: dict[str, list[int]] = {}
    for prompt in free:
        rids[engine.add(prompt, max_new_tokens=NEW)] = oracle.tokens(prompt, NEW)
        engine.step()
    for prompt in constrained:
        rids[engine.add(prompt, max_new_tokens=100, regex=PATTERN)] = oracle.constrained(tuple(prompt))
    aborted = engine.add(free[1], max_new_tokens=NEW)
    engine.steps(2)
    engine.abort(aborted)
    engine.run()
    results = engine.results
    assert {rid: results[rid].tokens for rid in rids} == rids
    happened = (
        any(result.last.cached_tokens for result in results.values()),
        any(result.last.retractions for result in results.values()),
        any(jumps),
        engine.engine.log.accepted > 0,
    )
    assert happened == (cached, retracted, jumping, speculating)
    assert engine.engine.scheduler.flush()
    assert engine.engine.scheduler.pool.free_count == engine.engine.settings.slots
