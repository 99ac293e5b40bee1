"""A constrained output belongs to its language, whatever the model prefers; what cannot be done is its request's error."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from kernel_engine.errors import RequestError
from kernel_engine.grammar import GrammarCompiler
from kernel_engine.matchers import LLGuidanceMatcher, XGrammarMatcher
from kernel_engine.request import LogprobRequest
from kernel_engine.sampling_params import Constraint

from .support import EOS, VOCAB, Result, StepEngine, byte_tokenizer, examples, random_module

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
        {"json_schema": '{"items": ' * 500 + '{"maxLength": 3}' + "}" * 500},
        {"ebnf": "root ::= undefined_rule"},
        {"ebnf": "no rules here"},
        {"structural_tag": "{}"},
        {"structural_tag": "not json"},
    ],
    ids=lambda constraint: str(constraint)[:40],
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


def test_a_token_that_is_refused_ends_its_request_alone(engine: StepEngine, monkeypatch: pytest.MonkeyPatch):
    alone = engine.generate([4, 5, 6]).tokens
    with monkeypatch.context() as patch:
        patch.setattr(LLGuidanceMatcher, "accept", lambda self, token: False)
        refused, neighbour = engine.add([1], regex="[ab]{9}"), engine.add([4, 5, 6])
        engine.run()
    assert engine.results[refused].finish["status_code"] == 400
    assert "refused a token" in engine.results[refused].finish["message"]
    assert engine.results[neighbour].tokens == alone


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


# -- the compiler ------------------------------------------------------------------------------------------------------


@pytest.fixture
def compiler() -> Iterator[GrammarCompiler]:
    made = GrammarCompiler(byte_tokenizer(), VOCAB, [EOS])
    yield made
    made.close()


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, XGrammarMatcher),
        ({"const": {"maxLength": 3}}, XGrammarMatcher),
        ({"properties": {"maxLength": {"type": "integer"}}}, XGrammarMatcher),
        ({"type": "string", "maxLength": 200}, LLGuidanceMatcher),
        ({"properties": {"a": {"anyOf": [{"type": "null"}, {"pattern": "^a+$"}]}}}, LLGuidanceMatcher),
        ({"$defs": {"enum": {"minLength": 1}}, "items": {"$ref": "#/$defs/enum"}}, LLGuidanceMatcher),
    ],
    ids=str,
)
def test_strings_with_limits_are_llguidances(compiler: GrammarCompiler, schema: dict[str, Any], kind: type):
    """xgrammar takes seconds for them, or 50 ms a mask, ignores one of two limits, and lets control characters in."""
    assert isinstance(compiler.compile(Constraint("json_schema", json.dumps(schema))).result()(), kind)


@pytest.mark.parametrize("limits", [{}, {"maxLength": 3}])
def test_an_object_has_only_the_properties_that_are_named(engine: StepEngine, limits: dict[str, int]):
    schema = {"type": "object", "properties": {"a": {"type": "string", "enum": ["x"]} | limits}, "required": ["a"]}
    texts = {
        engine.generate([n], json_schema=json.dumps(schema), **SAMPLED, logit_bias={"220": -1000}).text
        for n in range(6)
    }
    assert [json.loads(text) for text in texts] == [{"a": "x"}] * len(texts)


def test_white_space_between_the_parts_of_json_is_limited_with_either_compiler(engine: StepEngine):
    space = {"logit_bias": {str(engine.engine.model.tokenizer.convert_tokens_to_ids("Ġ")): 100.0}}
    for limits in ({}, {"maxLength": 1}):
        schema = {
            "type": "object",
            "properties": {"a": {"enum": ["x"]}, "b": {"type": "string"} | limits},
            "required": ["a"],
        }
        result = engine.generate([3], json_schema=json.dumps(schema), max_new_tokens=200, **space)
        assert json.loads(result.text)["a"] == "x"


def test_what_is_compiled_is_kept_but_not_for_ever(compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kernel_engine.grammar.CONSTRAINTS_KEPT", 2)
    first, second, third = (Constraint("regex", text) for text in "abc")
    compiled = compiler.compile(first)
    assert compiler.compile(first) is compiled
    compiler.compile(second)
    assert compiler.compile(first) is compiled  # and so it is not the one that goes
    compiler.compile(third)
    assert [*compiler._cache] == [first, third]


def test_a_constraint_has_a_limited_time_to_compile(compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch):
    compiler.wait_until_loaded()
    go_on = threading.Event()
    monkeypatch.setattr("kernel_engine.grammar.COMPILE_SECONDS", 0.05)
    monkeypatch.setattr(compiler, "_compile", lambda constraint: go_on.wait(30))
    with pytest.raises(RequestError, match="regex cannot be used: it takes more than 0 s to compile"):
        compiler.compile(Constraint("regex", "a")).result(30)
    go_on.set()


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_forced_is_told(engine: StepEngine, stream: bool):
    """Spans in the whole text, none of them of what there was a choice about; each output tells all so far."""
    pattern = r'\{"name": "([a-z]{1,6})", "house": "(north|south)", "size": ([0-9]{2})\}'
    rid = engine.add("A", regex=pattern, ignore_eos=True, stream=stream, max_new_tokens=80)
    engine.run()
    result = engine.results[rid]
    found = regex.fullmatch(pattern, result.text)
    assert found
    spans = result.last.forced
    assert [edge for span in spans for edge in span] == sorted(edge for span in spans for edge in span)
    assert result.text[slice(*spans[0])] == '{"name": '
    free = [found.span(1), (found.start(2), found.start(2) + 1), found.span(3)]
    assert all(stop <= begin or end <= start for start, stop in free for begin, end in spans)
    assert any("orth" in result.text[slice(*span)] or "outh" in result.text[slice(*span)] for span in spans)
    for output in result.outputs:
        assert output.forced == spans[: len(output.forced)]


def test_nothing_is_forced_without_a_constraint_or_with_logprobs(engine: StepEngine):
    assert engine.generate("A").last.forced == []
    scored = engine.generate("A", regex='"name": [0-9]', logprobs=LogprobRequest())
    assert scored.last.forced == []
