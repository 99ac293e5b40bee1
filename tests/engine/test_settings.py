"""Settings of the engine that change what becomes of a request: too long prompts, and who compiles constraints."""

from __future__ import annotations

import json

import pytest
import regex

from kernel_engine.errors import RequestError
from kernel_engine.model import Model
from kernel_engine.request import LogprobRequest
from kernel_engine.server_args import parse_args
from kernel_engine.sizing import resolve_settings
from kernel_engine.step_log import WHOLE_REQUEST

from .support import StepEngine, byte_tokenizer, random_module

CONTEXT = 64
FLAGS = (
    "--max-total-tokens 300 --max-running-requests 5 --max-prefill-tokens 40 --chunked-prefill-size 20 --schedule-policy lof "
    "--schedule-conservativeness 0.5 --disable-radix-cache --random-seed 7 --decode-log-interval 3 --allow-auto-truncate "
    "--enable-request-time-stats-logging --collect-tokens-histogram --enable-metrics --bucket-time-to-first-token 1 2 "
    "--grammar-backend llguidance --constrained-json-whitespace-pattern x"
)
PROPERTIES = {"a": {"enum": [1, 22, 333]}}
SCHEMA = json.dumps({"type": "object", "properties": PROPERTIES, "required": ["a"], "additionalProperties": False})
LIST = 'root ::= "[" [0-9]+ ("," [0-9]+)* "]"'


def test_flags_become_settings():
    model = Model(random_module(), byte_tokenizer())
    settings = resolve_settings(parse_args(["--model-path", "", *FLAGS.split()]), model, threads=2)
    policy = settings.policy
    assert (settings.slots, settings.rows, settings.seed) == (300, 5, 7)
    assert (policy.chunk, policy.max_prefill, policy.order, policy.conservativeness) == (20, 40, "lof", 0.5)
    assert not policy.share_prefixes
    assert settings.auto_truncate
    assert (settings.grammar_backend, settings.json_whitespace) == ("llguidance", "x")
    log = settings.log
    assert (log.interval, log.times, log.lengths, log.first_token) == (3, True, True, (1.0, 2.0))
    assert log.whole_request == WHOLE_REQUEST


def test_an_unlimited_chunk_is_bounded_by_the_step_alone():
    model = Model(random_module(), byte_tokenizer())
    policy = resolve_settings(parse_args(["--model-path", "", "--chunked-prefill-size", "-1"]), model, threads=2).policy
    assert policy.chunk > policy.max_prefill == 16384


def test_a_small_model_is_computed_by_one_thread(monkeypatch: pytest.MonkeyPatch):
    model, args = (
        Model(random_module(), byte_tokenizer()),
        parse_args(["--model-path", "", "--max-total-tokens", "300"]),
    )
    assert resolve_settings(args, model, threads=7).threads == 1
    monkeypatch.setattr("kernel_engine.sizing.SMALL_WEIGHTS", 0)
    assert resolve_settings(args, model, threads=7).threads == 7


def short(**settings: object) -> StepEngine:
    return StepEngine(random_module(max_position_embeddings=CONTEXT), settings=settings)


def test_a_prompt_that_is_too_long_is_refused_or_loses_its_end():
    prompt = [n % 250 for n in range(3 * CONTEXT)]
    with pytest.raises(
        RequestError, match=r"longer than the model's context length \(64 tokens\).*--allow-auto-truncate"
    ):
        short().generate(prompt)
    result = short(auto_truncate=True).generate(prompt)
    assert result.tokens == short().generate(prompt[: CONTEXT - 1]).tokens
    assert (result.last.prompt_tokens, result.last.completion_tokens) == (CONTEXT - 1, 1)


def test_what_is_cut_is_checked_as_it_will_be():
    engine = short(auto_truncate=True)
    with pytest.raises(RequestError, match="logprob_start_len must be below the prompt's length 63"):
        engine.add([1] * 100, logprobs=LogprobRequest(start=80))
    assert engine.generate([1] * 100, logprobs=LogprobRequest(start=60)).last.prompt_tokens == CONTEXT - 1


@pytest.mark.parametrize("kind", ["regex", "json_schema", "ebnf"])
def test_constraints_can_be_switched_off(kind: str):
    engine = short(grammar_backend="none")
    with pytest.raises(RequestError, match=f"{kind} is switched off: the server runs with --grammar-backend none"):
        engine.add([1, 2], **{kind: "a"})
    assert engine.generate([1, 2]).tokens == short().generate([1, 2]).tokens


@pytest.mark.parametrize("backend", ["xgrammar", "llguidance"])
@pytest.mark.parametrize("seed", range(3))
def test_both_compilers_keep_to_the_constraint(backend: str, seed: int):
    engine = StepEngine(random_module(), settings={"grammar_backend": backend})
    options = {"temperature": 1.5, "max_new_tokens": 200, "sampling_seed": seed}
    assert json.loads(engine.generate([seed], json_schema=SCHEMA, **options).text)["a"] in (1, 22, 333)
    assert regex.fullmatch(r"\[\d+(,\d+)*\]", engine.generate([seed], ebnf=LIST, **options).text)


def test_white_space_in_json_is_what_was_asked_for():
    engine = StepEngine(random_module(), settings={"grammar_backend": "llguidance", "json_whitespace": "#"})
    texts = [
        engine.generate([seed], json_schema=SCHEMA, temperature=1.5, max_new_tokens=200, sampling_seed=seed).text
        for seed in range(10)
    ]
    assert any("#" in text for text in texts)
    assert all(regex.fullmatch(r'\{#*"a"#*:#*(1|22|333)#*\}', text) for text in texts), texts


@pytest.mark.parametrize(
    ("kind", "text"), [("json_schema", "{"), ("json_schema", '{"type": "no"}'), ("ebnf", "root = 3")]
)
def test_what_llguidance_cannot_compile_is_the_requests_error(kind: str, text: str):
    engine = StepEngine(random_module(), settings={"grammar_backend": "llguidance"})
    finish = engine.generate([1], **{kind: text}).finish
    assert (finish["type"], finish["status_code"]) == ("abort", 400)
    assert finish["message"].startswith(f"{kind} {text!r} cannot be used: ")
