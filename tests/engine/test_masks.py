"""A mask that was made for one text is used for another only where both can go on in the same ways."""

from __future__ import annotations

import itertools
import random

import pytest
import regex
import torch
import xgrammar
from hypothesis import given
from hypothesis import strategies as st

from kernel_engine.automaton import MAX_LENGTH, MAX_STATES, Automaton, UnknownSyntax
from kernel_engine.grammar import GrammarCompiler
from kernel_engine.matchers import KeptMasks, LLGuidanceMatcher, Matcher
from kernel_engine.sampling_params import Constraint

from .support import EOS, VOCAB, byte_tokenizer, examples
from .test_grammar import PATTERNS, combined

SMALL = st.recursive(
    st.sampled_from(["a", "b", "-", ".", r"\w", r"\W", "[^a]", "[ab]", "[a-b-]", "(?:)"]), combined, max_leaves=7
)
TEXTS = ["".join(letters) for length in range(5) for letters in itertools.product("ab-", repeat=length)]
TAILS = [text for text in TEXTS if len(text) < 4]


@examples(80)
@given(expression=SMALL)
def test_texts_in_one_state_have_the_same_continuations(expression: str):
    automaton, whole = Automaton(expression), regex.compile(expression)
    found: dict[int, list[bool]] = {}
    for text in TEXTS:
        state = automaton.follow(0, text)
        continuations = [whole.fullmatch(text + tail) is not None for tail in TAILS]
        if state is None:
            assert not any(continuations)
        else:
            assert found.setdefault(state, continuations) == continuations


@pytest.mark.parametrize(
    ("expression", "alike"),
    [
        (r'"[\w\d\s]{1,16}", x', ['"Harry', '"abc d', '"1\t\n_A']),
        (r"(yes|no){2,}", ["yesno", "noyes", "nonoyes"]),
        (r"[ab]*a[ab]{3}\.", ["aaaa", "baaaa"]),
        (r"([0-9]{1,3}\.){3}[0-9]+?", ["1.22.333.4", "9.9.9.55"]),
        (r"\{\}\[\]\-[\]\-x]*", ["{}[]-", "{}[]-]", "{}[]-x-"]),
    ],
)
def test_texts_that_ask_for_the_same_share_a_state(expression: str, alike: list[str]):
    automaton = Automaton(expression)
    states = {automaton.follow(0, text) for text in alike}
    assert len(states) == 1
    assert None not in states


@examples(80)
@given(expression=SMALL)
def test_states_with_a_choice_are_found_each_with_a_text_that_leads_there(expression: str):
    automaton, whole = Automaton(expression), regex.compile(expression)
    found = dict(automaton.choices())
    assert all(automaton.follow(0, text) == state for state, text in found.items())
    for text in TEXTS:
        state = automaton.follow(0, text)
        tails = [tail for tail in TAILS if whole.fullmatch(text + tail)]
        if state is not None and len({tail[:1] for tail in tails}) > 1:
            assert state in found


def test_the_nearest_states_come_first_and_those_where_one_text_must_follow_not_at_all():
    automaton = Automaton("(yes|no)abc[xy]{2}z?")
    assert [text for _, text in automaton.choices()] == ["", "noabc", "noabcx", "noabcxx"]


def test_the_search_for_choices_ends_in_time_also_where_there_are_none():
    automaton = Automaton("a{3900}b?")
    assert list(automaton.choices(seconds=0.0)) == []
    assert automaton._steps == {}


def test_other_characters_than_ascii_are_told_apart_but_not_followed():
    automaton = Automaton("a(é|è)|b(é|è)|cé")
    a, b, c = (automaton.follow(0, text) for text in "abc")
    assert a == b != c
    assert automaton.follow(a, "é") is None
    assert automaton.follow(None, "a") is None


@pytest.mark.parametrize(
    "expression",
    ["(?i)a", r"a\b", "[[:alpha:]]", "[a&&b]", "[a--b]", "[a-c-e]", r"\pL", r"\x41", "^a$", "a{,3}", "a{3,1}", "(?=a)", "(?P<n>a)",
     "{a}", "(", ")", "[", "[]a]", "a|*", "\\", r"[\w-z]", "(" * 2000, "a" * (MAX_LENGTH + 1)],
    ids=lambda expression: expression[:12],
)  # fmt: skip
def test_what_has_another_meaning_elsewhere_is_not_followed(expression: str):
    with pytest.raises(UnknownSyntax):
        Automaton(expression)


def test_an_expression_of_too_many_states_is_followed_no_further():
    automaton = Automaton("a{9999}")
    assert automaton.follow(0, "a" * (MAX_STATES - 1)) is not None
    assert automaton.follow(0, "a" * (MAX_STATES + 1)) is None
    wide = Automaton("((a{1,99}b?){1,99}){1,99}")
    assert wide.follow(0, "a" * 99) is None


# -- masks -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiler():
    made = GrammarCompiler(byte_tokenizer(), VOCAB, [EOS])
    yield made
    made.close()


@pytest.fixture(scope="module")
def large():
    """A compiler that makes masks ahead, as for a large vocabulary."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kernel_engine.grammar.LARGE_VOCABULARY", VOCAB)
        made = GrammarCompiler(byte_tokenizer(), VOCAB, [EOS])
        yield made
        made.close()


def mask_of(matcher: Matcher) -> torch.Tensor:
    mask = xgrammar.allocate_token_bitmask(1, VOCAB)
    matcher.fill(mask, 0)
    return mask


def walk(kept: LLGuidanceMatcher, rng: random.Random) -> None:
    """Follow a random text, some of it taken back, and compare each mask with one made afresh."""
    fresh = LLGuidanceMatcher(kept._matcher.deep_copy())
    length = 0
    for _ in range(40):
        if kept.finished:
            return
        mask = mask_of(kept)
        assert torch.equal(mask, mask_of(fresh))
        allowed = [t for t in range(VOCAB) if t != EOS and mask[0, t // 32] >> (t % 32) & 1]
        if not allowed:
            return
        token = rng.choice(allowed)
        assert kept.accept(token)
        assert fresh.accept(token)
        length += 1
        if rng.random() < 0.2:
            count = rng.randint(1, min(3, length))
            kept.rollback(count)
            fresh.rollback(count)
            length -= count


@examples(60)
@given(expression=PATTERNS, seed=st.integers(0, 1000))
def test_a_kept_mask_is_the_one_that_would_be_made(compiler: GrammarCompiler, expression: str, seed: int):
    make = compiler.compile(Constraint("regex", expression)).result()
    for n in range(4):
        matcher = make()
        assert isinstance(matcher, LLGuidanceMatcher)
        walk(matcher, random.Random(seed + n))


def test_a_mask_is_made_once_for_all_who_follow_the_expression(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
):
    made: list[int] = []
    put = KeptMasks.put
    monkeypatch.setattr(
        KeptMasks, "put", lambda self, a, state, mask: (made.append(state), put(self, a, state, mask))[1]
    )
    make = compiler.compile(Constraint("regex", "<[a-z]{1,9}>")).result()
    tokenizer = byte_tokenizer()
    for text in ("<abcd", "<efgh", "<ijklm"):
        matcher = make()
        for token in tokenizer(text)["input_ids"]:
            mask_of(matcher)
            assert matcher.accept(token)
    assert len(made) == 6
    assert len(set(made)) == 6


@examples(60)
@given(expression=PATTERNS, seed=st.integers(0, 1000))
def test_a_mask_made_ahead_is_the_one_that_would_be_made(large: GrammarCompiler, expression: str, seed: int):
    make = large.compile(Constraint("regex", expression)).result()
    large.wait_until_made()
    matcher = make()
    assert isinstance(matcher, LLGuidanceMatcher)
    walk(matcher, random.Random(seed))


def test_over_a_large_vocabulary_masks_are_made_before_a_text_gets_there(
    large: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
):
    make = large.compile(Constraint("regex", "<[a-z]{1,7}|x{3}y>")).result()
    large.wait_until_made()
    monkeypatch.setattr(KeptMasks, "put", lambda *_: pytest.fail("a mask was made"))
    matcher = make()
    for token in byte_tokenizer()("<abcdefg")["input_ids"]:
        mask_of(matcher)
        assert matcher.accept(token)


def test_what_is_made_ahead_has_a_limit(large: GrammarCompiler, monkeypatch: pytest.MonkeyPatch):
    made: list[int] = []
    put = KeptMasks.put
    monkeypatch.setattr(
        KeptMasks, "put", lambda self, a, state, mask: (made.append(state), put(self, a, state, mask))[1]
    )
    monkeypatch.setattr("kernel_engine.matchers.AHEAD_STATES", 5)
    large.compile(Constraint("regex", "[ab]*a[ab]{18}")).result()
    large.wait_until_made()
    assert len(made) == 5
    monkeypatch.setattr("kernel_engine.grammar.AHEAD_AT_ONCE", 0)
    large.compile(Constraint("regex", "[cd]{9}")).result()
    large.wait_until_made()
    assert len(made) == 5


def test_the_masks_that_are_kept_have_a_limit(monkeypatch: pytest.MonkeyPatch):
    masks, automaton, mask = KeptMasks(), Automaton("a*"), torch.zeros(10, dtype=torch.int32)
    monkeypatch.setattr("kernel_engine.matchers.MASK_BYTES", 3 * mask.nbytes)
    for state in range(3):
        masks.put(automaton, state, mask)
    assert masks.get(automaton, 0) is mask
    masks.put(automaton, 3, mask)
    assert [masks.get(automaton, state) is mask for state in range(4)] == [True, False, True, True]
