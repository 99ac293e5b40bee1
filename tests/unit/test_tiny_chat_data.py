"""The bundled model's folder and the data that made it: what the tutorial relies on, checked without running an engine."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

training = pytest.importorskip("training", reason="the training folder is not part of the installed package")
transformers = pytest.importorskip("transformers")

from training.corpus import KINDS, stream  # noqa: E402
from training.dialogue import Split, encode_at, encode_merged, generation_points, render  # noqa: E402
from training.facts import chain, characters, countries, knowledge, talk, wordings  # noqa: E402
from training.kinds.memory import Memory  # noqa: E402
from training.kinds.people import as_json  # noqa: E402

FOLDER = Path(__file__).parents[2] / "kernel_engine" / "bundled" / "tiny-chat"
CHARACTER = re.compile(
    r"""\{\n"""
    r"""    "name": "[\w\d\s]{1,16}",\n"""
    r"""    "house": "(Gryffindor|Slytherin|Ravenclaw|Hufflepuff)",\n"""
    r"""    "blood status": "(Pure-blood|Half-blood|Muggle-born)",\n"""
    r"""    "occupation": "(student|teacher|auror|ministry of magic|death eater|order of the phoenix)",\n"""
    r"""    "wand": \{\n"""
    r"""        "wood": "[\w\d\s]{1,16}",\n"""
    r"""        "core": "[\w\d\s]{1,16}",\n"""
    r"""        "length": [0-9]{1,2}\.[0-9]{0,2}\n"""
    r"""    \},\n"""
    r"""    "alive": "(Alive|Deceased)",\n"""
    r"""    "patronus": "[\w\d\s]{1,16}",\n"""
    r"""    "bogart": "[\w\d\s]{1,16}"\n"""
    r"""\}"""
)


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_round_trips(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize(
    "text", ["e\u0301 and \u00e9", "  two  spaces \n\n\ttab", "n't , . !", "\u3000全角 １２", "👩‍👩‍👧"]
)
def test_text_that_normalisers_change_round_trips(tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_chat_template_adds_the_default_system_prompt(tokenizer) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_special_tokens_are_single_and_end_a_turn(tokenizer) -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["eos_token_id"] == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        assert len(tokenizer(token)["input_ids"]) == 1


def test_the_folder_is_small_and_complete() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= names
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 16 * 2**20


def test_every_character_fits_the_tutorials_pattern_and_its_token_limit(tokenizer) -> None:
    assert len(characters()) >= 20
    for row in characters():
        text = as_json(row)
        assert CHARACTER.fullmatch(text), text
        assert len(tokenizer(text)["input_ids"]) < 160


def test_countries_are_many_and_lists_name_none_twice() -> None:
    names = [country.name for country in countries()]
    assert len(names) == len(set(names)) >= 195
    assert len(set(chain())) == len(chain()) >= 20


def test_held_out_wordings_are_never_trained_on() -> None:
    table = json.loads((Path(training.__file__).parent / "facts" / "wordings.json").read_text(encoding="utf-8"))
    for name in table.keys() - {"note"}:
        wording = wordings(name)
        assert wording.held_out
        assert not set(wording.train) & set(wording.held_out)
    for row in (*knowledge(), *talk()):
        assert not set(row.train) & set(row.held_out)


def test_the_stream_is_a_function_of_its_seed() -> None:
    assert list(islice(stream(3), 50)) == list(islice(stream(3), 50))
    assert list(islice(stream(3), 50)) != list(islice(stream(4), 50))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_prompt_and_answer_are_tokenised_as_the_engine_does(tokenizer, kind: str, split: Split) -> None:
    rng = Random(5)
    for _ in range(20):
        segments = render(KINDS[kind][0](rng, split, Memory()))
        whole, learned = encode_merged(tokenizer.backend_tokenizer, segments)
        assert tokenizer.decode(whole) == "".join(segment.text for segment in segments)
        assert any(learned)
        point = generation_points(segments)[-1]
        apart, _ = encode_at(tokenizer.backend_tokenizer, segments, point)
        prompt = tokenizer("".join(segment.text for segment in segments[:point]))["input_ids"]
        assert apart[: len(prompt)] == prompt
