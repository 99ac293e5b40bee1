"""A draft changes how many forward passes a text takes, and nothing else: not a token, not a finish reason, not a slot."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from kernel_engine.loading import load_model
from kernel_engine.metrics import EngineMetrics
from kernel_engine.model import Model
from kernel_engine.protocol import Answer
from kernel_engine.request import LogprobEntry, LogprobRequest
from kernel_engine.server_args import ServerArgs, parse_args
from kernel_engine.sizing import resolve_settings
from kernel_engine.speculate import LONGEST, Drafter

from .support import EOS, VOCAB, Result, StepEngine, byte_tokenizer, examples, random_module

DRAFTED = 5


@pytest.fixture(scope="module")
def module() -> PreTrainedModel:
    return random_module()


# -- guessing ----------------------------------------------------------------------------------------------------------


def eager(most: int = 8) -> Drafter:
    """A drafter that has been right so far."""
    drafter = Drafter(most)
    drafter.verified(most, most)
    return drafter


def test_what_followed_the_longest_n_gram_is_guessed():
    text = [1, 2, 3, 4, 5, 9, 3, 4, 7, 7, 4, 8, 8, 2, 3, 4]
    assert eager(3).propose(text, 100) == [5, 9, 3]


def test_of_equal_n_grams_the_latest_counts():
    assert eager(1).propose([1, 2, 3, 1, 2, 4, 1, 2], 100) == [4]


def test_a_repetition_goes_on_for_ever():
    assert eager().propose([1, 2, 3, 2, 3], 7) == [2, 3, 2, 3, 2, 3, 2]


@pytest.mark.parametrize(("text", "limit"), [([1, 2, 3], 5), ([1], 5), ([1, 1], 0), ([1, 1], -3)])
def test_nothing_is_guessed(text: list[int], limit: int):
    assert eager().propose(text, limit) == []


def test_what_is_forced_goes_before_what_repeats():
    drafter = eager(3)
    drafter.forced = [7, 8, 9, 10]
    assert (drafter.propose([1, 1, 1], 100), drafter.propose([1, 1, 1], 1)) == ([7, 8, 9], [7])


@examples(200)
@given(text=st.lists(st.integers(0, 3), min_size=1, max_size=60), cuts=st.lists(st.integers(1, 60), max_size=3))
def test_a_guess_follows_the_longest_n_gram(text: list[int], cuts: list[int]):
    """Whatever was asked before, against a search of the whole text."""
    drafter = eager()
    for cut in sorted(cuts):
        drafter.propose(text[: min(cut, len(text))], 8)
    guess = drafter.propose(text, 8)
    places = {
        n: [i for i in range(n, len(text)) if text[i - n : i] == text[-n:]]
        for n in range(1, min(LONGEST, len(text)) + 1)
    }
    longest = max((n for n in places if places[n]), default=None)
    whole = [] if longest is None else text + list(itertools.islice(itertools.cycle(text[places[longest][-1] :]), 8))
    assert text + guess == (whole if guess else text)
    assert bool(guess) == (longest is not None)


def test_wrong_guesses_make_it_careful_and_right_ones_bold():
    drafter = Drafter(8)
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]
    assert len(drafter.propose(text, 99)) == 1
    for drafted, accepted, then in ((1, 1, 3), (3, 3, 7), (7, 7, 8), (8, 2, 5), (5, 1, 3)):
        drafter.verified(drafted, accepted)
        assert len(drafter.propose(text, 99)) == then
    drafter.verified(3, 0)
    assert drafter.propose(text, 99) == [], "one token that repeats is not enough after a wrong guess"
    text += [2]
    assert drafter.propose(text, 99) == [3]
    for _ in range(9):
        drafter.verified(1, 0)
    text += [3, 4, 5, 6]
    assert drafter.propose(text, 99) == [7], "the longest n-gram is always enough"


# -- the same outputs --------------------------------------------------------------------------------------------------


@dataclass
class Guesses:
    """Drafts from what the texts are known to become, each token wrong with a chance of `errors`."""

    errors: float = 0.0
    texts: list[list[int]] = field(default_factory=list)
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def propose(self, tokens: list[int], limit: int) -> list[int]:
        known = next((t for t in self.texts if len(t) > len(tokens) and t[: len(tokens)] == tokens), tokens)
        draft = known[len(tokens) :][: max(0, min(limit, DRAFTED))]
        return [self.random.randrange(VOCAB) if self.random.random() < self.errors else token for token in draft]


@pytest.fixture
def guesses(monkeypatch: pytest.MonkeyPatch) -> Guesses:
    """Replaces every drafter's n-grams; without texts, nothing is guessed."""
    found = Guesses()
    monkeypatch.setattr(Drafter, "propose", lambda _, tokens, limit: found.propose(tokens, limit))
    return found


REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "one token": {"max_new_tokens": 1},
    "two tokens": {"max_new_tokens": 2},
    "no token": {"max_new_tokens": 0},
    "sampled": {"temperature": 1.0, "sampling_seed": 5},
    "nucleus": {"temperature": 0.8, "top_p": 0.7, "top_k": 20, "min_p": 0.02, "sampling_seed": 6},
    "penalties": {"frequency_penalty": 0.9, "presence_penalty": 0.5, "repetition_penalty": 1.3, "logit_bias": {"7": 2.0}},
    "sampled with penalties": {"temperature": 0.7, "repetition_penalty": 1.4, "frequency_penalty": -0.4, "sampling_seed": 7},
    "at least some": {"min_new_tokens": 9, "stop_token_ids": list(range(0, VOCAB, 3))},
    "stop tokens": {"stop_token_ids": list(range(0, VOCAB, 7))},
    "stop string": {"stop": [chr(c) for c in range(97, 110)]},
    "stop regex": {"stop_regex": ["[A-Z][a-z]"], "no_stop_trim": True},
    "end ignored": {"ignore_eos": True, "logit_bias": {str(EOS): 3.0}},
    "regex": {"regex": r'\{"name": "[a-z]{1,9}", "alive": (true|false), "house": "(Gryffindor|Slytherin)"\}', "max_new_tokens": 50},
    "sampled regex": {"regex": "(one|two|three)( and (one|two|three)){3,5}", "temperature": 2.0, "sampling_seed": 8},
    "regex and stop": {"regex": "forced text, and then [a-f]{4}", "stop": ["hen "]},
    "schema": {"json_schema": json.dumps({"type": "object", "properties": {"alive": {"type": "boolean"},
               "house": {"enum": ["Gryffindor", "Slytherin"]}}, "required": ["alive", "house"]})},
    "grammar": {"ebnf": 'root ::= "<" word ">"\nword ::= [a-c] [a-c] | "long" word', "temperature": 1.0, "sampling_seed": 3},
    "dead end": {"ebnf": "root ::= [ab]", "min_new_tokens": 5},
    "logprobs": {"logprobs": LogprobRequest(start=2, top=3, token_ids=(4, 5))},
    "regex with logprobs": {"regex": '"name": "[a-z]{4}", "age": [0-9]{2}', "logprobs": LogprobRequest(top=2)},
    "sampled logprobs": {"temperature": 1.0, "sampling_seed": 9, "logprobs": LogprobRequest()},
}  # fmt: skip
STEM = [11, 12, 13, 11, 12, 13, 11, 12]


def serve(engine: StepEngine, names: list[str], together: bool, **common: Any) -> dict[str, Result]:
    rids = {}
    for n, name in enumerate(names):
        options: dict[str, Any] = {"max_new_tokens": 30} | REQUESTS[name] | common
        rids[name] = engine.add([*STEM, n], **options)
        if not together:
            engine.run()
    engine.run()
    return {name: engine.results[rid] for name, rid in rids.items()}


def texts(results: dict[str, Result]) -> list[list[int]]:
    return [[*STEM, n, *result.tokens] for n, result in enumerate(results.values())]


def same(results: dict[str, Result], wanted: dict[str, Result]) -> None:
    for name, result in results.items():
        other = wanted[name]
        assert (result.tokens, result.text, result.finish) == (other.tokens, other.text, other.finish), name
        assert result.last.completion_tokens == other.last.completion_tokens
        for entries in ("input_logprobs", "output_logprobs"):
            got, expected = ([e for o in r.outputs for e in getattr(o, entries)] for r in (result, other))
            assert len(got) == len(expected), name
            for pair in zip(got, expected, strict=True):
                close(*pair)


def close(entry: LogprobEntry, wanted: LogprobEntry) -> None:
    assert entry.token == wanted.token
    assert entry.logprob == (wanted.logprob and pytest.approx(wanted.logprob, abs=1e-4))
    for alternatives, others in ((entry.top, wanted.top), (entry.chosen_ids, wanted.chosen_ids)):
        assert [token for _, token in alternatives or []] == [token for _, token in others or []]
        assert [p for p, _ in alternatives or []] == pytest.approx([p for p, _ in others or []], abs=1e-4)


@pytest.fixture(scope="module")
def plain(module: PreTrainedModel) -> dict[str, Result]:
    """What comes of each request without speculation."""
    return serve(StepEngine(module), list(REQUESTS), together=False)


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
def test_with_n_grams(module: PreTrainedModel, plain: dict[str, Result], together: bool):
    engine = StepEngine(module, drafted=DRAFTED)
    same(serve(engine, list(REQUESTS), together), plain)
    assert engine.engine.log.drafted > engine.engine.log.accepted > 0


@pytest.mark.parametrize("errors", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
def test_with_guesses_of_every_quality(
    module: PreTrainedModel, plain: dict[str, Result], guesses: Guesses, errors: float, together: bool
):
    guesses.errors, guesses.texts = errors, texts(plain)
    engine = StepEngine(module, drafted=DRAFTED)
    same(serve(engine, list(REQUESTS), together), plain)
    log = engine.engine.log
    assert log.drafted > 50
    assert log.accepted / log.drafted < 0.05 if errors == 1.0 else log.accepted > 20
    assert errors > 0 or log.accepted == log.drafted


@pytest.mark.parametrize(
    "limits",
    [
        {"chunk": 5},
        {"share_prefixes": False},
        {"slots": 64, "conservativeness": 0.0},
        {"slots": 90, "rows": 3, "chunk": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("errors", [0.0, 0.3])
def test_under_every_limit(
    module: PreTrainedModel, plain: dict[str, Result], guesses: Guesses, limits: dict[str, Any], errors: float
):
    guesses.errors, guesses.texts = errors, texts(plain)
    engine = StepEngine(module, drafted=DRAFTED, **limits)
    same(serve(engine, list(REQUESTS), together=True), plain)
    assert engine.engine.log.accepted > 0
    assert engine.engine.scheduler.flush()
    assert engine.engine.scheduler.pool.free_count == limits.get("slots", 2048)


def test_beyond_a_sliding_window(guesses: Guesses):
    """Drafted tokens see the window of their own position."""
    windowed = random_module(sliding_window=6, use_sliding_window=True, max_window_layers=0)
    wanted = serve(StepEngine(windowed), ["greedy", "end ignored", "sampled"], together=False)
    guesses.errors, guesses.texts = 0.2, texts(wanted)
    engine = StepEngine(windowed, chunk=5, drafted=DRAFTED)
    same(serve(engine, list(wanted), together=True), wanted)
    assert engine.engine.log.accepted > 0


def test_a_stream_gives_the_same(module: PreTrainedModel, plain: dict[str, Result], guesses: Guesses):
    guesses.texts = texts(plain)
    results = serve(StepEngine(module, drafted=DRAFTED), list(REQUESTS), together=True, stream=True)
    same(results, plain)
    assert max(len(output.token_ids) for output in results["greedy"].outputs) == DRAFTED + 1


def test_an_abort_between_drafts_keeps_what_there_is(
    module: PreTrainedModel, plain: dict[str, Result], guesses: Guesses
):
    guesses.texts = texts(plain)
    engine = StepEngine(module, drafted=DRAFTED)
    rid = engine.add([*STEM, 0], max_new_tokens=30)
    engine.steps(3)
    engine.abort(rid)
    engine.run()
    result = engine.results[rid]
    assert result.finish["type"] == "abort"
    assert 3 < len(result.tokens) < 30
    assert result.tokens == plain["greedy"].tokens[: len(result.tokens)]


def test_wrong_guesses_never_reach_the_prefix_cache(module: PreTrainedModel, guesses: Guesses):
    params = {"max_new_tokens": 12, "ignore_eos": True}
    answer = StepEngine(module).generate(STEM, **params).tokens
    wrong = [*STEM, *answer[:4], (answer[4] + 1) % VOCAB, *answer[5:]]
    guesses.texts = [wrong]
    engine = StepEngine(module, drafted=DRAFTED)
    assert engine.generate(STEM, **params).tokens == answer
    assert engine.engine.log.drafted > engine.engine.log.accepted
    tree = engine.engine.scheduler.tree
    assert tree.size == len(STEM) + 11
    assert engine.generate([*STEM, *answer[:11], 3], max_new_tokens=0).last.cached_tokens == len(STEM) + 11
    assert engine.generate([*wrong], max_new_tokens=0).last.cached_tokens == len(STEM) + 4


def test_a_full_pool_takes_drafts_before_it_takes_requests_memory(module: PreTrainedModel, guesses: Guesses):
    """Both requests end after 21 tokens with the pool full to the last slot; the drafts, which go on, find no room."""
    prompts = [[n] * 10 for n in (1, 2)]
    params = {"max_new_tokens": 40, "ignore_eos": True}
    truth = StepEngine(module)
    answers = [truth.generate(prompt, **params).tokens for prompt in prompts]
    guesses.texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    engine = StepEngine(module, slots=60, conservativeness=0.0, drafted=DRAFTED)
    ends = [answer[20] for answer in answers]
    assert all(end not in answer[:20] for end, answer in zip(ends, answers, strict=True))
    rids = [engine.add(p, stop_token_ids=[end], **params) for p, end in zip(prompts, ends, strict=True)]
    engine.run()
    assert [engine.results[rid].tokens for rid in rids] == [answer[:21] for answer in answers]
    assert [engine.results[rid].last.retractions for rid in rids] == [0, 0]


PROMPTS = [[*STEM[:cut], n] for cut in (2, 8) for n in range(3)]
ACTIONS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(PROMPTS), st.integers(0, 24)),
    st.tuples(st.just("step"), st.integers(1, 5)),
    st.tuples(st.just("abort"), st.integers(0, 9)),
)


@pytest.fixture(scope="module")
def answers(module: PreTrainedModel) -> dict[tuple[int, ...], list[int]]:
    engine = StepEngine(module)
    return {tuple(prompt): engine.generate(prompt, max_new_tokens=24).tokens for prompt in PROMPTS}


@examples(40)
@given(
    actions=st.lists(ACTIONS, min_size=6, max_size=25),
    slots=st.sampled_from([48, 64, 2048]),
    chunk=st.sampled_from([1, 5, 64]),
    errors=st.sampled_from([0.0, 0.2, 0.7]),
    share=st.booleans(),
)
def test_random_traffic(module: PreTrainedModel, answers: dict, actions, slots, chunk, errors, share):
    guesses = Guesses(errors, [[*prompt, *answer] for prompt, answer in answers.items()])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drafter, "propose", lambda _, tokens, limit: guesses.propose(tokens, limit))
        engine = StepEngine(
            module, slots=slots, rows=4, chunk=chunk, share_prefixes=share, conservativeness=0.0, drafted=DRAFTED
        )
        for name, *arguments in actions:
            if name == "add":
                engine.add(arguments[0], max_new_tokens=arguments[1])
            elif name == "step":
                engine.steps(arguments[0])
            elif engine.results:
                engine.abort(f"r{arguments[0] % len(engine.results)}")
        engine.run()
    for rid, result in engine.results.items():
        request = engine.requests[rid]
        wanted = answers[tuple(request.input_ids)][: request.params.max_new_tokens]
        assert result.tokens == (wanted[: len(result.tokens)] if result.finish["type"] == "abort" else wanted)
    assert engine.engine.scheduler.flush()
    assert engine.engine.scheduler.pool.free_count == slots


# -- fewer forward passes ----------------------------------------------------------------------------------------------


def test_right_guesses_save_passes_and_are_reported(module: PreTrainedModel, guesses: Guesses):
    """30 tokens: one with the prompt and 5 drafted behind it, then 6 a pass."""
    params = {"max_new_tokens": 30, "ignore_eos": True}
    answer = StepEngine(module).generate(STEM, **params)
    guesses.texts = [STEM + answer.tokens]
    engine = StepEngine(module, drafted=DRAFTED)
    result = engine.generate(STEM, **params)
    assert result.tokens == answer.tokens
    assert engine.engine.log.steps == 5
    assert result.last.speculation == {
        "spec_verify_ct": 5, "spec_accept_length": 6.0, "spec_accept_rate": 1.0, "spec_accept_token_num": 25,
        "spec_draft_token_num": 25,
    }  # fmt: skip
    assert engine.engine.log.generation_tokens == 30
    metrics = EngineMetrics(engine.engine, "m").text().decode()
    assert 'sglang:spec_accept_length{model_name="m"} 6.0' in metrics
    assert 'sglang:spec_accept_rate{model_name="m"} 1.0' in metrics
    answer = Answer(engine.requests["r0"], None)
    answer.add(result.last)
    assert answer.json()["meta_info"]["spec_verify_ct"] == 5


NGRAM = ["--speculative-algorithm", "NGRAM"]


@pytest.mark.parametrize(
    ("flags", "drafted"), [([], 0), (NGRAM, 8), ([*NGRAM, "--speculative-num-draft-tokens", "3"], 3)], ids=str
)
def test_the_flags(flags: list[str], drafted: int):
    model = Model(random_module(), byte_tokenizer())
    assert resolve_settings(parse_args(["--model-path", "x", *flags]), model, threads=1).policy.drafted == drafted


CHARACTER_REGEX = (
    r'\{\n    "name": "[\w\d\s]{1,16}",\n    "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)",\n'
    r'    "blood status": "(Pure-blood|Half-blood|Muggle-born)",\n    "alive": "(Alive|Deceased)",\n'
    r'    "wand": \{\n        "wood": "[\w\d\s]{1,16}",\n        "length": [0-9]{1,2}\.[0-9]{0,2}\n    \}\n\}'
)
"""After the one in SGLang's frontend tutorial."""
CHARACTER = (
    "Harry Potter is a character in Harry Potter. Please fill in the following information about this character."
)
HAIKU = "Write a haiku."


@pytest.fixture(scope="module")
def tiny_chat() -> Model:
    return load_model(ServerArgs(model_path="tiny-chat", device="cpu"))


def ask(model: Model, *said: str) -> list[int]:
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    return model.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("options", [{}, {"logprobs": LogprobRequest(top=2)}], ids=["with jumps", "with logprobs"])
def test_json_takes_fewer_passes(tiny_chat: Model, options: dict[str, Any]):
    """Jump-forward leaves the last forced token to the model; with log-probabilities it leaves all."""
    plain, speculating = StepEngine(tiny_chat), StepEngine(tiny_chat, drafted=8)
    prompt = ask(tiny_chat, CHARACTER)
    results = [e.generate(prompt, regex=CHARACTER_REGEX, max_new_tokens=200, **options) for e in (plain, speculating)]
    same({"json": results[1]}, {"json": results[0]})
    assert json.loads(results[0].text)["name"] == "Harry Potter"
    assert plain.engine.log.steps >= 1.5 * speculating.engine.log.steps


def test_a_question_asked_again_takes_fewer_passes(tiny_chat: Model):
    plain, speculating = StepEngine(tiny_chat), StepEngine(tiny_chat, drafted=8)
    answer = plain.generate(ask(tiny_chat, HAIKU), max_new_tokens=100).text
    before = plain.engine.log.steps
    prompt = ask(tiny_chat, HAIKU, answer, HAIKU)
    results = [engine.generate(prompt, max_new_tokens=100) for engine in (plain, speculating)]
    assert results[0].tokens == results[1].tokens
    assert results[0].finish["type"] == "stop"
    assert plain.engine.log.steps - before >= 3 * speculating.engine.log.steps


def test_without_speculation_nothing_is_said_of_it(module: PreTrainedModel):
    assert StepEngine(module).generate(STEM).last.speculation == {}
