"""Chat templates: SGLang's names, texts and rules."""

from __future__ import annotations

import json

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.lang import chat_template
from sgl_jupyter.lang.chat_template import (
    ChatTemplate,
    get_chat_template,
    get_chat_template_by_model_path,
    register_chat_template,
    register_chat_template_matching_function,
)
from sgl_jupyter.lang.known_templates import TEMPLATES
from sgl_jupyter.lang.program import begin_state

from .fake_backend import FakeBackend
from .sglang_client import MODELS, described
from .sglang_client import TEMPLATES as RECORDED

SGLANG = json.loads(RECORDED.read_text(encoding="utf-8"))


def render(template: str, *messages: tuple[str, str]) -> str:
    s = begin_state(FakeBackend(template=template))
    for role, content in messages:
        s += getattr(sgl, role)(content)
    return s.text()


CHAT = (("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "U2"))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("default", "SYSTEM:S\nUSER:U\nASSISTANT:A\nUSER:U2\n"),
        ("qwen", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
                 "<|im_start|>user\nU2<|im_end|>\n"),
        ("llama-2-chat", "[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]A </s><s>[INST] U2 [/INST]"),
        ("mistral", "[SYSTEM_PROMPT] S [/SYSTEM_PROMPT][INST] U [/INST]A </s><s>[INST] U2 [/INST]"),
        ("claude", "S\n\nHuman: U\n\nAssistant:A\n\nHuman: U2"),
        ("deepseek-v3", "S<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>U2"),
        ("janus-pro", "S<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>U2"),  # UB-34: upstream loses the user role
    ],
)  # fmt: skip
def test_a_chat_is_rendered(template: str, text: str) -> None:
    assert render(template, *CHAT) == text


def test_llama_2_without_a_system_message() -> None:
    assert render("llama-2-chat", *CHAT[1:3]) == "[INST] U [/INST]A </s><s>"


@pytest.mark.parametrize(("model_path", "name"), [("tiny-chat", "qwen"), ("/models/tiny-vision", "qwen2-vl")])
def test_the_bundled_models_have_templates(model_path: str, name: str) -> None:
    assert get_chat_template_by_model_path(model_path).name == name


def test_the_template_is_chosen_by_the_models_path_as_sglang_chooses_it() -> None:
    chosen = {model: get_chat_template_by_model_path(model).name for model in MODELS}
    assert chosen == SGLANG["0.5.23"]["chosen"]
    earlier = {model for model, name in SGLANG["0.4.6.post4"]["chosen"].items() if name != chosen[model]}
    assert earlier == {
        "OrionStarAI/Orion-14B-Chat",
        "google/gemma-4-12b-it",
        "internlm/Intern-S1",
        "zai-org/GLM-4.5V",
    }, "these came later"


def test_every_template_of_sglang_is_there_with_its_texts() -> None:
    mine = {template.name: described(template) for template in TEMPLATES}
    theirs = SGLANG["0.5.23"]["templates"]
    assert mine.keys() == theirs.keys()
    different = {name for name in mine if mine[name] != theirs[name]}
    assert different == {"janus-pro", "gemma-4-it"}, (
        "UB-34: SGLang's user of the one has no markup; the other is its maker's"
    )
    earlier = SGLANG["0.4.6.post4"]["templates"]
    assert {name for name in earlier if earlier[name] != mine[name]} == {"janus-pro", "gemma-it"}


def test_a_whole_conversation_is_written_as_programs_write_it() -> None:
    messages = [{"role": role, "content": content} for role, content in CHAT]
    for template in TEMPLATES:
        assert template.get_prompt(messages) == render(template.name, *CHAT)
    default = [{"role": "system", "content": None}, {"role": "user", "content": "U"}]
    assert get_chat_template("qwen").get_prompt(default) == render("qwen", ("user", "U"))
    assert get_chat_template("llama-2-chat").get_prompt(default) == "[INST] U [/INST]"


def test_a_process_can_add_templates_and_rules_that_choose_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "_registry", chat_template.Registry())
    roles = {"user": ("<u>", "</u>"), "assistant": ("<a>", "</a>")}
    register_chat_template(ChatTemplate(name="mine", default_system_prompt=None, role_prefix_and_suffix=roles))
    assert render("mine", *CHAT[1:3]) == "<u>U</u><a>A</a>"

    @register_chat_template_matching_function
    def mine(model_path: str) -> str | None:
        return "mine" if "my-qwen" in model_path else None

    assert mine("my-qwen") == "mine"
    assert get_chat_template_by_model_path("org/my-qwen-7b-chat").name == "mine"
    assert get_chat_template_by_model_path("org/qwen-7b-chat").name == "qwen"


def test_a_backend_can_be_given_a_template_as_a_value() -> None:
    backend = FakeBackend()
    backend.chat_template = get_chat_template("llama-3-instruct")
    s = begin_state(backend)
    s += sgl.user("U")
    assert s.text() == "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
    assert backend.get_chat_template().image_token == "<|image|>"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(KeyError, match="qwen2-vl"):
        get_chat_template("qwen4")
