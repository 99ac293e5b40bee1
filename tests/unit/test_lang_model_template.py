"""The model's own chat template: programs are written in it exactly as transformers renders the same conversation."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import ModelTemplate
from sgl_jupyter.backends.model_info import model_template
from sgl_jupyter.lang.chat_template import get_chat_template, template_of
from sgl_jupyter.lang.jinja import NotConcatenative
from sgl_jupyter.lang.model_template import derive
from sgl_jupyter.lang.program import begin_state

from .fake_backend import FakeBackend
from .model_templates import GEMMA3, LLAMA3, PHI3, PUBLISHED, QWEN3, SMOLLM3, Published

BUNDLED = Path(__file__).parents[2] / "kernel_engine" / "bundled"
TALK = ["What is 2+2?", "It is 4.", "And 3+3?", "It is 6.", "And 4+4?"]
"""Turn by turn, the user's first."""
WITHOUT_SYSTEM = ["Gemma", "Mistral-v1", "Mistral-v3"]
"""They refuse system messages, or move them about."""


class ModelBackend(FakeBackend):
    """A backend whose model brings a chat template along, and has a name that SGLang has no rule for."""

    def __init__(self, published: Published, name: str = "someone/new-model") -> None:
        super().__init__()
        self.chat_template = None
        self.model_path = name
        self.model_template = ModelTemplate(published.source, published.bos_token, published.eos_token)


def tokenizer_of(published: Published) -> Any:
    """One token a byte and one for each piece of markup. What begins a text is added to every text, if the template names it."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    markup = {*re.findall(r"<\|?[a-z_]+\|?>|\[/?INST\]|</s>", published.source), published.eos_token}
    tokenizer.add_special_tokens(sorted(markup | ({published.bos_token} - {""})))
    if "bos_token" in published.source:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{published.bos_token} $A",
            special_tokens=[(published.bos_token, tokenizer.token_to_id(published.bos_token))],
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=published.bos_token or None,
        eos_token=published.eos_token,
        chat_template=published.source,
    )


def program_text(published: Published, system: str | None, turns: list[str]) -> str:
    """What a program has written when the model is to answer the last turn."""
    s = begin_state(ModelBackend(published))
    if system is not None:
        s += sgl.system(system)
    for number, turn in enumerate(turns):
        s += sgl.assistant(turn) if number % 2 else sgl.user(turn)
    s += sgl.assistant_begin()
    return s.text()


def engine_ids(text: str, tokenizer: Any) -> list[int]:
    protocol = pytest.importorskip("kernel_engine.protocol")
    return protocol.read_generate({"text": text}, tokenizer, 1).requests[0].input_ids


@pytest.mark.parametrize("turns", [1, 3, 5])
@pytest.mark.parametrize(
    ("name", "system"),
    [(name, None) for name in PUBLISHED] + [(name, "Be brief.") for name in PUBLISHED if name not in WITHOUT_SYSTEM],
)
def test_a_program_gives_the_tokens_of_transformers_own_rendering(name: str, system: str | None, turns: int) -> None:
    published = PUBLISHED[name]
    tokenizer = tokenizer_of(published)
    said = list(TALK[:turns])
    if name in ("Llama-2", "Mistral-v3"):  # their models begin an answer with a space
        said[1::2] = [f" {answer}" for answer in said[1::2]]
    roles = [{"role": "assistant" if i % 2 else "user", "content": turn} for i, turn in enumerate(said)]
    messages = [{"role": "system", "content": system}, *roles] if system else roles
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=published.generation, return_dict=False)
    mine = engine_ids(program_text(published, system, said), tokenizer)
    if not published.generation:  # what the prompt for an answer adds is left to the model
        theirs += tokenizer("<|im_start|>assistant\n")["input_ids"]
    assert mine == theirs


@pytest.mark.parametrize(
    ("published", "stop"),
    [(QWEN3, ["<|im_end|>"]), (PHI3, ["<|endoftext|>", "<|end|>"]), (LLAMA3, ["<|end_of_text|>", "<|eot_id|>"])],
)
def test_generations_end_with_the_turn(published: Published, stop: list[str]) -> None:
    backend = ModelBackend(published)
    s = begin_state(backend)
    s += sgl.user("x") + sgl.assistant(sgl.gen("y"))
    s.sync()
    assert list(backend.requests[0][1].stop) == stop


@pytest.mark.parametrize("name", WITHOUT_SYSTEM)
def test_a_system_message_that_a_template_does_not_know_opens_the_first_users_turn(name: str) -> None:
    text = program_text(PUBLISHED[name], "Be brief.", TALK[:1])
    plain = program_text(PUBLISHED[name], None, TALK[:1])
    assert text == plain.replace(TALK[0], f"Be brief.\n\n{TALK[0]}")


def test_the_models_default_system_message_is_one_of_the_messages() -> None:
    s = begin_state(ModelBackend(SMOLLM3))
    s += sgl.user("Hello")
    assert [message["role"] for message in s.messages()] == ["system", "user"]
    assert "SmolLM" in s.messages()[0]["content"]


def test_text_before_the_first_message_has_no_beginning_put_in_its_middle() -> None:
    s = begin_state(ModelBackend(LLAMA3))
    s += "Once. " + sgl.user("x")
    assert "<|begin_of_text|>" not in s.text()


def test_the_token_of_an_image_is_the_templates() -> None:
    assert derive(ModelTemplate(GEMMA3.source, "<bos>", "<eos>")).image_token == "<start_of_image>"
    assert derive(ModelTemplate(QWEN3.source)).image_token == "<image>"


def test_a_model_that_sees_has_the_image_token_of_its_kind_where_its_template_takes_no_images() -> None:
    backend = ModelBackend(QWEN3, "someone/seeing")
    backend.model_type = "qwen2_5_vl"
    assert template_of(backend).image_token == "<|vision_start|><|image_pad|><|vision_end|>"
    assert template_of(backend).role_prefix_and_suffix["user"] == ("<|im_start|>user\n", "<|im_end|>\n")


def test_the_bundled_model_that_sees_is_written_the_same_under_any_name() -> None:
    own = model_template({"model_path": str(BUNDLED / "tiny-vision")})
    assert own is not None
    found, known = derive(own, "someone/finetuned"), get_chat_template("qwen2-vl")
    talk = [{"role": "system", "content": None}, *({"role": r, "content": "x"} for r in ("user", "assistant", "user"))]
    assert found.get_prompt(talk) == known.get_prompt(talk)
    assert (found.image_token, found.stop_str) == (known.image_token, known.stop_str)


def test_a_model_without_a_template_has_that_of_its_kind() -> None:
    backend = ModelBackend(QWEN3, "someone/seeing-base")
    backend.model_type, backend.model_template = "qwen2_5_vl", None
    assert template_of(backend) is get_chat_template("qwen2-vl")


def test_sglangs_template_comes_first_where_the_path_matches() -> None:
    assert template_of(ModelBackend(QWEN3, "Qwen/Qwen3-4B-Instruct-2507")) is get_chat_template("qwen")
    assert template_of(ModelBackend(QWEN3, "Qwen/Qwen3-4B")).name == "Qwen/Qwen3-4B"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{% for m in messages %}{{ m.content }}{{ loop.index }}{% endfor %}", "stands where it writes"),
        ("{{ messages[-1].content }}", "of 3 messages it writes 1|of 5 messages it writes 1"),
        ("{% if", "no Jinja template"),
        ("{{ raise_exception('never') }}", "never"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        (
            "{% for m in messages %}{{ m.role + m.content }}{% endfor %}{% if add_generation_prompt %}GO{% endif %}",
            "past",
        ),
    ],
)
def test_a_template_that_cannot_be_written_message_by_message_is_not_used_and_told_once(
    source: str, problem: str
) -> None:
    with pytest.raises(NotConcatenative, match=problem):
        derive(ModelTemplate(source))
    backend = ModelBackend(Published(source, "", ""), name=f"odd/{abs(hash(source))}")
    with pytest.warns(UserWarning, match=r"cannot be used.*chat_template_name=\.\.\., one of default,"):
        assert template_of(backend) is get_chat_template("default")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        template_of(backend)


def test_a_model_without_a_template_is_told_once() -> None:
    backend = ModelBackend(QWEN3, "someone/base-model")
    backend.model_template = None
    with pytest.warns(UserWarning, match="'someone/base-model' has no chat template that can be read here"):
        template_of(backend)


def test_kernel_engine_tells_the_template_and_sglangs_is_read_from_its_folder(tmp_path: Path) -> None:
    told = {"chat_template": "{{ x }}", "bos_token": "<s>", "eos_token": None}
    assert model_template(told) == ModelTemplate("{{ x }}", "<s>", "")
    assert model_template({"chat_template": None, "tokenizer_path": str(tmp_path)}) is None
    config = {"eos_token": {"content": "</s>"}, "bos_token": "<s>", "chat_template": "{{ a }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert model_template({"tokenizer_path": str(tmp_path)}) == ModelTemplate("{{ a }}", "", "</s>")
    named = [{"name": "tool_use", "template": "{{ t }}"}, {"name": "default", "template": "{{ d }}"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named}))
    assert model_template({"model_path": str(tmp_path)}) == ModelTemplate("{{ d }}", "", "</s>")
    (tmp_path / "chat_template.jinja").write_text("{{ file }}")
    assert model_template({"model_path": str(tmp_path)}) == ModelTemplate("{{ file }}", "", "</s>")
    assert model_template({"model_path": "Qwen/Qwen2.5-7B-Instruct"}) is None
    (tmp_path / "tokenizer_config.json").write_text("{")
    assert model_template({"model_path": str(tmp_path)}) is None
