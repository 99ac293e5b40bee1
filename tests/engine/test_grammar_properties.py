"""Whatever JSON schema or grammar is asked for, a random model's output belongs to it, with either compiler."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import jsonschema
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from .support import Result, StepEngine, examples, random_module

SAMPLED = {"temperature": 1.0, "max_new_tokens": 120}
NO_SPACE = {"logit_bias": {"220": -1000, "198": -1000}}
"""Spaces and line ends, of which a random model would write nothing else."""


@pytest.fixture(scope="module", params=["xgrammar", "llguidance"])
def engine(request: pytest.FixtureRequest) -> StepEngine:
    return StepEngine(random_module(), slots=4096, settings={"grammar_backend": request.param})


def outputs(engine: StepEngine, count: int, **params: Any) -> list[Result]:
    """Samples that did not fail."""
    rids = [engine.add([n, 7], sampling_seed=n, **SAMPLED | params) for n in range(count)]
    engine.run()
    results = [engine.results[rid] for rid in rids]
    assert all(result.finish["type"] in ("stop", "length") for result in results), [r.finish for r in results]
    return results


# -- JSON schemas ------------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-9, 99) | st.text('abé "\\{', max_size=3)


def ordered(
    kind: dict[str, Any], low: str, high: str, limits: st.SearchStrategy[int]
) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas of a kind between two limits."""
    return st.tuples(limits, limits).map(lambda pair: kind | {low: min(pair), high: max(pair)})


LEAVES = st.one_of(
    SCALARS.map(lambda value: {"const": value}),
    st.lists(SCALARS, min_size=1, max_size=3, unique_by=json.dumps).map(lambda values: {"enum": values}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}]),
    ordered({"type": "integer"}, "minimum", "maximum", st.integers(-20, 200)),
    ordered({"type": "string"}, "minLength", "maxLength", st.integers(0, 4)),
    st.sampled_from(["^[a-c]{2}$", r"^\d{1,3}-x$"]).map(lambda pattern: {"type": "string", "pattern": pattern}),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    counts = st.tuples(st.integers(0, 2), st.integers(2, 3))
    lists = st.tuples(inner, counts).map(
        lambda made: {"type": "array", "items": made[0], "minItems": made[1][0], "maxItems": made[1][1]}
    )
    objects = st.dictionaries(st.sampled_from(["a", "b c", "é", '"']), st.tuples(inner, st.booleans()), max_size=3).map(
        lambda members: {
            "type": "object",
            "properties": {name: schema for name, (schema, _) in members.items()},
            "required": [name for name, (_, required) in members.items() if required],
            "additionalProperties": False,
        }
    )
    return lists | objects | st.lists(inner, min_size=2, max_size=2).map(lambda options: {"anyOf": options})


@examples(50)
@given(schema=st.recursive(LEAVES, nested, max_leaves=5))
def test_random_schemas(engine: StepEngine, schema: dict[str, Any]):
    for result in outputs(engine, 3, json_schema=json.dumps(schema), **NO_SPACE):
        if result.finish["type"] == "stop":
            jsonschema.validate(json.loads(result.text), schema)


# -- grammars ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """A language, as the body of an EBNF rule with the rules that it uses, and as a regular expression."""

    body: str
    pattern: str
    uses: tuple[str, ...] = ()


TERMINALS = st.sampled_from(
    [
        Rule('"a"', "a"),
        Rule('"Bc "', "Bc "),
        Rule('"é"', "é"),
        Rule("[a-f]", "[a-f]"),
        Rule("[0-9]", "[0-9]"),
        Rule('"\\""', '"'),
    ]
)


def composed(inner: st.SearchStrategy[Rule]) -> st.SearchStrategy[Rule]:
    def join(pair: tuple[Rule, Rule], by: tuple[str, str]) -> Rule:
        (first, second), (ebnf, pattern) = pair, by
        return Rule(
            f"({first.body}{ebnf}{second.body})",
            f"(?:{first.pattern}{pattern}{second.pattern})",
            (*first.uses, *second.uses),
        )

    def named(rule: Rule, count: str = "") -> Rule:
        name = f"rule{crc32(rule.body.encode())}"
        pattern = f"(?:{rule.pattern}){count}" if count else rule.pattern
        return Rule(name + count, pattern, (*rule.uses, f"{name} ::= {rule.body}"))

    pairs, counts = st.tuples(inner, inner), st.sampled_from("*+?")
    return st.one_of(
        pairs.map(lambda pair: join(pair, (" ", ""))),
        pairs.map(lambda pair: join(pair, (" | ", "|"))),
        st.tuples(inner, counts).map(lambda made: named(*made)),
        inner.map(named),
    )


@examples(50)
@given(rule=st.recursive(TERMINALS, composed, max_leaves=6))
def test_random_grammars(engine: StepEngine, rule: Rule):
    grammar = "\n".join(dict.fromkeys([f"root ::= {rule.body}", *rule.uses]))
    for result in outputs(engine, 3, ebnf=grammar):
        cut = result.finish["type"] == "length"
        text = result.text.rstrip("\ufffd") if cut else result.text
        assert regex.fullmatch(rule.pattern, text, partial=cut), (grammar, text)
