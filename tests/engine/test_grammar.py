"""A constrained output belongs to its language, whatever the model prefers; what cannot be done is its request's error."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from .support import Result, StepEngine, examples, random_module

SAMPLED = {"temperature": 1.5, "max_new_tokens": 60}


@pytest.fixture(scope="module")
def engine():
    return StepEngine(random_module(), slots=4096)


@pytest.fixture(autouse=True)
def _still_works(engine: StepEngine):
    """After every test the engine gives an unconstrained request what it always gives."""
    before = engine.generate([1, 2, 3]).tokens
    yield
    assert engine.generate([1, 2, 3]).tokens == before


def belongs(result: Result, pattern: str) -> bool:
    """Whether the text matches, or is a beginning of a match that was cut by its length."""
    cut = result.finish["type"] == "length"
    assert result.finish["type"] in ("stop", "length"), result.finish
    return regex.fullmatch(pattern, result.text.rstrip("\ufffd") if cut else result.text, partial=cut) is not None


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    counts = st.sampled_from(["*", "+", "?", "{2}", "{0,3}", "{1,}"])
    return (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})")
        | st.tuples(inner, counts).map(lambda pair: f"(?:{pair[0]}){pair[1]}")
    )


ATOMS = st.sampled_from(["a", "Bc", "é", "你好", " ", r"\d", r"\.", "[a-f]", "[^x-z\n]", "[A-Z0-9]", r'"name": "', "."])
PATTERNS = st.recursive(ATOMS, combined, max_leaves=6)


@examples(60)
@given(pattern=PATTERNS, seed=st.integers(0, 1000))
def test_random_regexes(engine: StepEngine, pattern: str, seed: int):
    rids = [engine.add([seed % 250, n], regex=pattern, sampling_seed=seed + n, **SAMPLED) for n in range(3)]
    engine.run()
    for rid in rids:
        assert belongs(engine.results[rid], pattern), (pattern, engine.results[rid].text)


@pytest.mark.parametrize(
    "pattern", [r"(Paris|Rome|Berlin)", r"\d{3}-\d{4}", r"((25[0-5]|2[0-4]\d|[01]?\d?\d)\.){3}\d{1,3}"]
)
@pytest.mark.parametrize("temperature", [0, 1.0, 3.0])
def test_a_bounded_regex_is_completed(engine: StepEngine, pattern: str, temperature: float):
    result = engine.generate([9, 9], regex=pattern, temperature=temperature, sampling_seed=1, max_new_tokens=100)
    assert result.finish["type"] == "stop"
    assert regex.fullmatch(pattern, result.text)


def test_every_alternative_can_be_reached(engine: StepEngine):
    rids = [engine.add([5], regex="(Paris|Rome|Oslo)", sampling_seed=n, temperature=5.0) for n in range(40)]
    engine.run()
    assert {engine.results[rid].text for rid in rids} == {"Paris", "Rome", "Oslo"}


def test_with_logprobs_the_output_belongs_too(engine: StepEngine):
    from kernel_engine.request import LogprobRequest

    result = engine.generate([9], regex=r'\{"name": "[a-z]{3}"\}', logprobs=LogprobRequest(), max_new_tokens=60)
    assert regex.fullmatch(r'\{"name": "[a-z]{3}"\}', result.text)
    assert len(result.last.output_logprobs) == result.last.completion_tokens == len(result.tokens)


@pytest.mark.parametrize("limit", [1, 2, 5, 11, 12])
def test_forced_text_counts_towards_the_limit(engine: StepEngine, limit: int):
    result = engine.generate([9], regex="forced text here", max_new_tokens=limit)
    assert result.finish == {"type": "length", "length": limit}
    assert len(result.tokens) == result.last.completion_tokens == limit
    assert "forced text here".startswith(result.text)


def test_forced_text_can_hold_a_stop(engine: StepEngine):
    result = engine.generate([9], regex="one, two, three", stop=", t", max_new_tokens=60)
    assert (result.text, result.finish) == ("one", {"type": "stop", "matched": ", t"})


SCHEMAS: dict[str, dict[str, Any]] = {
    "object": {
        "type": "object",
        "properties": {"name": {"enum": ["Ada", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    "union": {"anyOf": [{"const": "x"}, {"type": "null"}, {"enum": [1, 2]}]},
    "nested": {
        "type": "object",
        "properties": {"point": {"type": "object", "properties": {"x": {"enum": [0, 1]}}, "required": ["x"]}},
        "required": ["point"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_schemas(engine: StepEngine, name: str):
    schema = SCHEMAS[name]
    bias = {"220": -1000, "198": -1000}
    options = {"json_schema": json.dumps(schema), "logit_bias": bias, "temperature": 1.0, "max_new_tokens": 200}
    rids = [engine.add([n, 7], sampling_seed=n, **options) for n in range(8)]
    engine.run()
    complete = [engine.results[rid] for rid in rids if engine.results[rid].finish["type"] == "stop"]
    assert len(complete) >= 4
    for result in complete:
        jsonschema.validate(json.loads(result.text), schema)


def test_ebnf(engine: StepEngine):
    grammar = 'root ::= "<" word ">"\nword ::= [a-c] [a-c] | "long" word'
    rids = [engine.add([n], ebnf=grammar, sampling_seed=n, **SAMPLED) for n in range(8)]
    engine.run()
    assert all(belongs(engine.results[rid], "<(long)*[a-c]{2}>") for rid in rids)


@pytest.mark.parametrize(
    "constraint",
    [
        {"regex": "(unclosed"},
        {"regex": r"(?=look)ahead"},
        {"regex": r"(a)\1"},
        {"regex": "["},
        {"json_schema": "{not json"},
        {"json_schema": '{"type": "nonsense"}'},
        {"json_schema": "[]"},
        {"ebnf": "root ::= undefined_rule"},
        {"ebnf": "no rules here"},
        {"structural_tag": "{}"},
        {"structural_tag": "not json"},
    ],
    ids=str,
)
def test_a_broken_constraint_is_refused_with_a_sentence(engine: StepEngine, constraint: dict[str, str]):
    result = engine.generate([1], **constraint)
    assert (result.finish["type"], result.finish["status_code"]) == ("abort", 400), result.finish
    message = result.finish["message"]
    assert next(iter(constraint)) in message
    assert len(message.splitlines()) == 1
    assert 20 < len(message) < 400


DEAD_END = {"ebnf": "root ::= [ab]", "min_new_tokens": 5, "max_new_tokens": 9}
"""The text must end after one token, and may not."""


def test_a_dead_end_is_an_error_of_its_request(engine: StepEngine):
    result = engine.generate([1], **DEAD_END)
    assert (result.finish["type"], result.finish["status_code"]) == ("abort", 400)
    assert "no token" in result.finish["message"]


def test_a_dead_end_leaves_its_neighbours_alone(engine: StepEngine):
    alone = engine.generate([4, 5, 6]).tokens
    dead = engine.add([1], **DEAD_END)
    neighbour, constrained = engine.add([4, 5, 6]), engine.add([7], regex="(yes|no)")
    engine.run()
    assert engine.results[dead].finish["type"] == "abort"
    assert engine.results[neighbour].tokens == alone
    assert engine.results[constrained].text in ("yes", "no")


def test_an_empty_language_is_the_empty_text(engine: StepEngine):
    result = engine.generate([1], regex="(a{0})", max_new_tokens=9)
    assert (result.text, result.finish["type"]) == ("", "stop")


def test_a_forced_part_of_a_character(engine: StepEngine):
    # Fails if what must follow is taken to be text: these two begin with the same byte, which is none.
    for params in ({"json_schema": '{"enum": ["é", "è"]}'}, {"ebnf": 'root ::= "é" | "è"'}):
        assert engine.generate("a", **params).text.strip('"') in ("é", "è")


def test_json_is_not_all_white_space(engine: StepEngine):
    biased = {"logit_bias": {str(engine.engine.model.tokenizer.convert_tokens_to_ids("Ġ")): 100.0}}
    result = engine.generate("a", json_schema='{"type": "object", "properties": {}}', max_new_tokens=100, **biased)
    assert json.loads(result.text) == {}
