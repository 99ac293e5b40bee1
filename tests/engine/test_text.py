"""Text as it is streamed: whole characters, cut at stops, and never more than what stays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from kernel_engine.errors import RequestError
from kernel_engine.sampling_params import SamplingParams
from kernel_engine.text import TextStream

from .support import EOS, byte_tokenizer, examples

SAMPLE = "The quick brown fox jumps over the lazy dog. 你好,世界! 👩‍👩‍👧 naïve café\n\n<end> stop here\n" * 3
BYTES = byte_tokenizer().backend_tokenizer


def trained_on_bytes() -> Tokenizer:
    """Tokens of several bytes, some of which end inside a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([SAMPLE], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return tokenizer


def metaspace() -> Tokenizer:
    """Llama 2's way: a space belongs to the word after it and is dropped at the beginning; unknown characters are bytes."""
    words = {word: 300 + i for i, word in enumerate(["▁", "▁a", "▁the", "he", "l", "o", "d", "a", "▁st", "op", "."])}
    vocabulary = {"<unk>": 0} | {f"<0x{i:02X}>": 1 + i for i in range(256)} | words
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


TOKENIZERS = {"bytes": BYTES, "bpe": trained_on_bytes(), "metaspace": metaspace()}
TEXTS = st.text(st.sampled_from("ab .\n你👩‍é<>0ÿ\u0301"), max_size=20) | st.text(max_size=12)


def stream(
    tokens: list[int], *, tokenizer: Tokenizer = BYTES, prompt: list[int] | None = None, **params: Any
) -> tuple[list[str], TextStream]:
    """The pieces that are shown, one a token, up to the stop."""
    text = TextStream(tokenizer, SamplingParams.from_json(params), prompt or [])
    pieces = []
    for token in tokens:
        text.push(token)
        if text.matched is not None:
            break
        pieces.append(text.take())
    pieces.append(text.take(final=True))
    return pieces, text


def encode(text: str, tokenizer: Tokenizer = BYTES) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", ["bytes", "bpe"])
@examples(80)
@given(text=TEXTS, prompt=TEXTS)
def test_pieces_join_to_the_text(name: str, text: str, prompt: str):
    tokenizer = TOKENIZERS[name]
    pieces, _ = stream(encode(text, tokenizer), tokenizer=tokenizer, prompt=encode(prompt, tokenizer))
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@examples(80)
@given(tokens=st.lists(st.sampled_from([*range(300, 311), *encode("你", TOKENIZERS["metaspace"])]), max_size=12))
@example([66, 229, 304])
@example([229, 190, 161, 229, 304])
def test_a_tokenizer_with_byte_fallback(tokens: list[int]):
    """A run of bytes that is no text is decoded anew as a whole; what was shown of it stays."""
    tokenizer, prompt = TOKENIZERS["metaspace"], [301, 302]
    shown = "".join(stream(tokens, tokenizer=tokenizer, prompt=prompt)[0])
    wanted = tokenizer.decode(prompt + tokens)[len(tokenizer.decode(prompt)) :]
    assert shown == wanted or "\ufffd" in wanted
    assert "".join(c for c in shown if c.isascii() and c != "A") == "".join(c for c in wanted if c.isascii())


@examples(80)
@given(tokens=st.lists(st.integers(0, 255), max_size=16))
@example([160, 121])
def test_bytes_that_are_no_text_are_shown_as_replacement_characters(tokens: list[int]):
    pieces, _ = stream(tokens)
    assert "".join(pieces) == BYTES.decode(tokens)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_begun_by_the_prompt_is_finished_by_the_output(cut: int):
    prompt, output = encode("so: ") + encode("👩")[:cut], encode("👩")[cut:] + encode("!")
    pieces, _ = stream(output, prompt=prompt)
    assert "".join(pieces) == "👩!"


@pytest.mark.parametrize("prompt", [[*encode("so: "), *encode("👩")[:2]], encode("so: \ufffd")], ids=["cut", "literal"])
def test_a_character_that_the_prompt_never_finishes_is_not_the_outputs(prompt: list[int]):
    assert "".join(stream(encode("b你"), prompt=prompt)[0]) == "b你"


@pytest.mark.parametrize("character", ["你", "👩", "é"])
def test_a_character_is_shown_when_it_is_whole(character: str):
    tokens = encode(character)
    pieces, _ = stream(tokens)
    assert pieces[: len(tokens)] == [""] * (len(tokens) - 1) + [character]


STOPS = st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=3)


def cut_at_first_stop(text: str, stops: list[str], *, keep: bool = False) -> tuple[str, str | None]:
    """By definition: the shortest beginning of the text that holds a stop is cut where its leftmost one begins."""
    for end in range(1, len(text) + 1):
        if found := [(text[:end].index(stop), stop) for stop in stops if stop in text[:end]]:
            start, stop = min(found, key=lambda each: (each[0], len(each[1])))
            return text[: start + len(stop) if keep else start], stop
    return text, None


@examples(300)
@given(text=st.text("ab.", max_size=14), stops=STOPS, keep=st.booleans())
def test_text_is_cut_at_the_first_stop(text: str, stops: list[str], keep: bool):
    pieces, state = stream(encode(text), stop=stops, no_stop_trim=keep)
    assert ("".join(pieces), state.matched) == cut_at_first_stop(text, stops, keep=keep)


@examples(300)
@given(text=st.text("ab.", max_size=14), stops=STOPS)
def test_nothing_is_held_back_but_what_may_become_a_stop(text: str, stops: list[str]):
    state = TextStream(BYTES, SamplingParams(stop=tuple(stops)), [])
    shown = ""
    for end, token in enumerate(encode(text), 1):
        state.push(token)
        if state.matched is not None:
            break
        shown += state.take()
        held = text[len(shown) : end]
        assert not held or any(stop.startswith(held) for stop in stops)


@examples(60)
@given(stops=st.lists(st.sampled_from(["stop", "the ", "你好", "\n\n", "g. ", "<end>", "x"]), min_size=1, max_size=3))
def test_a_stop_inside_a_token_or_across_tokens(stops: list[str]):
    tokenizer = TOKENIZERS["bpe"]
    pieces, state = stream(encode(SAMPLE, tokenizer), tokenizer=tokenizer, stop=stops)
    shown = "".join(pieces)
    assert SAMPLE.startswith(shown)
    if state.matched is None:
        assert all(stop not in SAMPLE for stop in stops)
    else:
        assert SAMPLE[len(shown) :].startswith(state.matched)
        assert all(stop not in shown for stop in stops)


def test_a_stop_regex_cuts_before_its_match():
    pieces, state = stream(encode("call 0123 now"), stop_regex=r"\d{2,3}")
    assert ("".join(pieces), state.matched) == ("call ", "01")
    assert all("0" not in piece for piece in pieces)


def test_a_stop_regex_that_only_began_is_shown_in_the_end():
    pieces, state = stream(encode("call 0x"), stop_regex=r"\d{2,3}")
    assert (pieces[-3], pieces[-2], pieces[-1], state.matched) == ("", "0x", "", None)


def test_a_stop_regex_does_not_wait_for_an_alternative_that_began_earlier():
    pieces, state = stream(encode('say "hello\n\nbye'), stop_regex=r'"[^"]*"|\n\n')
    assert ("".join(pieces), state.matched) == ('say "hello', "\n\n")


def test_a_stop_regex_that_explodes_is_an_error_of_its_request():
    state = TextStream(BYTES, SamplingParams(stop_regex=(r"(a|aa)+$b",)), [])

    def push_all() -> None:
        for token in encode("a" * 200):
            state.push(token)

    with pytest.raises(RequestError, match=r"stop_regex .* takes too long"):
        push_all()
    assert state.take(final=True)


def test_taking_text_searches_nothing_and_so_cannot_fail(monkeypatch: pytest.MonkeyPatch):
    state = TextStream(BYTES, SamplingParams(stop_regex=(r"\d\d",)), [])
    for token in encode("ab1"):
        state.push(token)
    monkeypatch.setattr("kernel_engine.text._search", None)
    assert state.take() == "ab"


def test_special_tokens_are_shown_only_when_asked_for():
    tokens = [*encode("a"), EOS, *encode("b")]
    assert "".join(stream(tokens)[0]) == "ab"
    assert "".join(stream(tokens, skip_special_tokens=False)[0]) == "a<eos>b"


def test_a_stop_may_be_the_text_of_a_special_token():
    pieces, state = stream([*encode("a"), EOS, *encode("b")], skip_special_tokens=False, stop="<eos>")
    assert ("".join(pieces), state.matched) == ("a", "<eos>")
