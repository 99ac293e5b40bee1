"""What is made of an answer's text: thoughts, tool calls and the rest, however the text is cut; and what is made of a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import xgrammar
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from kernel_engine.errors import LoadError, RequestError
from kernel_engine.openai.call_forms import FORMS, JSON, LLAMA3, MISTRAL, PYTHONIC, QWEN, Form, choose_form
from kernel_engine.openai.calls import Arguments, Called, Said, call_reader
from kernel_engine.openai.chat import read_chat
from kernel_engine.openai.completions import read_completions
from kernel_engine.openai.constraints import constrain
from kernel_engine.openai.logprobs import Vocabulary
from kernel_engine.openai.messages import read_messages, read_tools
from kernel_engine.openai.reasoning import ReasoningReader, Stage, first_stage
from kernel_engine.openai.settings import Settings
from kernel_engine.openai.template import load_template
from kernel_engine.sampling_params import SamplingParams

from ..engine.support import byte_tokenizer

NAMES = {"weather", "stop"}
PIECES = (1, 2, 3, 7, 1000)
"""Characters of a text that come at once."""


def read_calls(form: Form, text: str, count: int) -> tuple[str, list[tuple[str, str]]]:
    """The text of an answer that comes `count` characters at a time, and its calls."""
    reader = call_reader(form, NAMES)
    pieces = [piece for at in range(0, len(text), count) for piece in reader.feed(text[at : at + count])]
    said, calls = "", []
    for piece in pieces + reader.feed("", final=True):
        match piece:
            case Said(more):
                said += more
            case Called(name):
                calls.append((name, ""))
            case Arguments(more):
                calls[-1] = (calls[-1][0], calls[-1][1] + more)
    return said, calls


ONE, TWO = ("weather", '{"city": "a}\\"{"}'), ("stop", "{}")
CALLS: list[tuple[str, Form, str, str, list[tuple[str, str]]]] = [
    ("two with text before", QWEN, 'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "a}\\"{"}}\n'
     '</tool_call>\n<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>', "Let me see.", [ONE, TWO]),
    ("arguments first", QWEN, '<tool_call>{"arguments": {}, "name": "stop"}</tool_call>', "", [TWO]),
    ("text after", QWEN, '<tool_call>{"name": "stop", "arguments": {}}</tool_call> Bye', " Bye", [TWO]),
    ("an unknown tool", QWEN, '<tool_call>{"name": "x", "arguments": {}}</tool_call>',
     '<tool_call>{"name": "x", "arguments": {}}</tool_call>', []),
    ("no object", QWEN, "a < b <tool_ <tool_call> me", "a < b <tool_ <tool_call> me", []),
    ("cut in the arguments", QWEN, '<tool_call>{"name": "stop", "arguments": {"a": [1', "", [("stop", '{"a": [1')]),
    ("cut in the name", QWEN, '<tool_call>{"name": "sto', '<tool_call>{"name": "sto', []),
    ("an array", MISTRAL, '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "a}\\"{"}, "id": "123456789"}, '
     '{"name": "stop", "arguments": {}}]', "", [ONE, TWO]),
    ("objects", LLAMA3, '<|python_tag|>{"name": "weather", "parameters": {"city": "a}\\"{"}}; '
     '{"name": "stop", "parameters": {}}', "", [ONE, TWO]),
    ("a type first", LLAMA3, ' {"type": "function", "name": "stop", "parameters": {}}', "", [TWO]),
    ("an object that is no call", LLAMA3, '{"answer": 42} it is', '{"answer": 42} it is', []),
    ("an object in a text", LLAMA3, 'So: {"name": "stop", "parameters": {}}', 'So: {"name": "stop", "parameters": {}}', []),
    ("an array of objects", JSON, '[{"name": "weather", "parameters": {"city": "a}\\"{"}}, {"name": "stop", "parameters": {}}]',
     "", [ONE, TWO]),
    ("an array of numbers", JSON, "[1, 2]", "[1, 2]", []),
    ("python", PYTHONIC, "[weather(city='a}\"{'), stop()]", "", [ONE, TWO]),
    ("python that is no literal", PYTHONIC, "[weather(city=name)]", "[weather(city=name)]", []),
    ("python with a stranger", PYTHONIC, "[stop(), exit()]", "[stop(), exit()]", []),
    ("a list", PYTHONIC, "[1, 2]", "[1, 2]", []),
    ("deep python", PYTHONIC, "[stop(a=" + "(" * 5000, "[stop(a=" + "(" * 5000, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "text", "said", "calls"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS]
)
@pytest.mark.parametrize("count", PIECES)
def test_calls(form: Form, text: str, said: str, calls: list[tuple[str, str]], count: int):
    assert read_calls(form, text, count) == (said, calls)


def test_arguments_are_given_while_they_come():
    reader = call_reader(QWEN, NAMES)
    given = [
        reader.feed(piece) for piece in ('<tool_call>{"name": "weather"', ', "arguments": {"ci', 'ty": "R', '"}', "}")
    ]
    assert given == [[], [Called("weather"), Arguments('{"ci')], [Arguments('ty": "R')], [Arguments('"}')], []]


THOUGHTS: list[tuple[Stage, str, str, str]] = [
    ("begins", "<think>\nHm.\n</think>\n\nHi < there", "Hm.", "Hi < there"),
    ("begins", " \n<think>Hm.</think>Hi", "Hm.", "Hi"),
    ("begins", " Hi", "", " Hi"),
    ("begins", "<thi", "", "<thi"),
    ("thinks", "a </b </think>\nc", "a </b", "c"),
    ("thinks", "<think>a</think>b", "a", "b"),
    ("thinks", "never ends ", "never ends ", ""),
    ("says", "<think>", "", "<think>"),
]


@pytest.mark.parametrize(("stage", "text", "thoughts", "said"), THOUGHTS)
@pytest.mark.parametrize("count", PIECES)
def test_thoughts(stage: Stage, text: str, thoughts: str, said: str, count: int):
    reader = ReasoningReader(stage)
    given = [reader.feed(text[at : at + count]) for at in range(0, len(text), count)] + [reader.feed("", final=True)]
    assert ("".join(g[0] for g in given), "".join(g[1] for g in given)) == (thoughts, said)


@pytest.mark.parametrize(
    ("parser", "prompt", "stage"),
    [
        ("qwen3", "<|im_start|>assistant\n", "begins"),
        ("qwen3", "assistant\n<think>\n\n</think>\n\n", "says"),
        ("qwen3", "assistant\n<think>\n", "thinks"),
        ("deepseek-r1", "<｜Assistant｜>", "thinks"),
    ],
)
def test_where_an_answer_begins(parser: str, prompt: str, stage: Stage):
    assert first_stage(parser, prompt) == stage


# -- constraints --------------------------------------------------------------------------------------------------------

CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": CITY}},
    {"type": "function", "function": {"name": "stop"}},
]


def accepts(tools: dict[str, Any], form: Form | None, stage: Stage = "says", **params: str):
    """Whether a text is a whole answer under the constraint."""
    built = constrain(SamplingParams(**params), read_tools(tools), form, stage)  # pyright: ignore[reportArgumentType]
    assert built.structural_tag is not None
    info = xgrammar.TokenizerInfo([chr(n) for n in range(128)] + ["<eos>"], stop_token_ids=[128])
    compiled = xgrammar.GrammarCompiler(info).compile_structural_tag(built.structural_tag)

    def accepted(text: str) -> bool:
        matcher = xgrammar.GrammarMatcher(compiled)
        return matcher.accept_string(text) and matcher.accept_token(128)

    return accepted


WRITTEN = {
    "qwen25": '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    "mistral": '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rome"}}]',
    "llama3": '{"name": "weather", "parameters": {"city": "Rome"}}',
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_forced_call_has_the_models_own_form_and_is_read_again(name: str):
    form, text = FORMS[name], WRITTEN[name]
    accepted = accepts({"tools": TOOLS, "tool_choice": "required"}, form)
    assert accepted(text)
    assert not accepted(text.replace("Rome", "Paris"))
    assert not accepted("Hello")
    assert not accepted("")
    assert read_calls(form, text, 1) == ("", [("weather", '{"city": "Rome"}')])


def test_a_named_tool_is_called_once():
    choice = {"type": "function", "function": {"name": "stop"}}
    accepted = accepts({"tools": TOOLS, "tool_choice": choice}, LLAMA3)
    call = '{"name": "stop", "parameters": {}}'
    assert accepted(call)
    assert not accepted(f"{call}; {call}")
    assert not accepted(WRITTEN["llama3"])


def test_several_calls_unless_they_are_not_wanted():
    body = {"tools": TOOLS, "tool_choice": "required"}
    two = f"{WRITTEN['qwen25']}\n{WRITTEN['qwen25']}"
    assert accepts(body, QWEN)(two)
    assert not accepts(body | {"parallel_tool_calls": False}, QWEN)(two)


def test_strict_tools_bind_calls_but_not_text():
    tools = [{"type": "function", "function": {"name": "weather", "parameters": CITY, "strict": True}}]
    accepted = accepts({"tools": tools}, QWEN)
    assert accepted("Just text.")
    assert accepted("Text. " + WRITTEN["qwen25"])
    assert not accepted(WRITTEN["qwen25"].replace("Rome", "Paris"))


def test_a_format_or_a_call():
    accepted = accepts({"tools": TOOLS}, QWEN, regex="[0-9]+")
    assert accepted("42")
    assert accepted(WRITTEN["qwen25"])
    assert not accepted("text")


def test_thoughts_are_free_before_a_constraint():
    assert accepts({}, None, "begins", regex="[0-9]+")("<think>Any text.</think>\n\n42")
    assert accepts({}, None, "begins", regex="[0-9]+")("42")
    assert accepts({}, None, "thinks", json_schema=json.dumps(CITY))('Any text.</think>\n{"city": "Oslo"}')
    assert not accepts({}, None, "thinks", ebnf='root ::= "x"')("x")


def test_a_call_and_a_format_cannot_both_be_forced():
    with pytest.raises(RequestError, match="tool_choice and regex"):
        accepts({"tools": TOOLS, "tool_choice": "required"}, QWEN, regex="x")


# -- templates ----------------------------------------------------------------------------------------------------------

QWEN_TEMPLATE = '{{ \'<tool_call>\\n{\\"name\\": <name>, \\"arguments\\": <object>}\' }}'


@pytest.mark.parametrize(
    ("name", "template", "form"),
    [
        (None, QWEN_TEMPLATE, QWEN),
        (None, "<tool_call><function=name>arguments", None),
        (None, "[TOOL_CALLS] [...]", MISTRAL),
        (None, '<|python_tag|> {"name": ..., "parameters": ...}', LLAMA3),
        (None, "{{ messages }}", None),
        (None, None, None),
        ("pythonic", QWEN_TEMPLATE, PYTHONIC),
        ("hermes", None, QWEN),
    ],
)
def test_the_form_of_calls_is_named_or_told_from_the_template(
    name: str | None, template: str | None, form: Form | None
):
    assert choose_form(name, template) is form


CHAT = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]
NAMED = {
    "chatml": "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama-3-instruct": "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>"
    "\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "deepseek-v3": "S<｜User｜>U<｜Assistant｜>A<｜end▁of▁sentence｜><｜Assistant｜>",
    "vicuna_v1.1": "S USER:U ASSISTANT:A</s>ASSISTANT:",
}


@pytest.mark.parametrize("name", NAMED)
def test_named_templates(name: str):
    assert load_template(name, byte_tokenizer()).render(CHAT) == NAMED[name]


def test_a_default_system_prompt():
    rendered = load_template("qwen", byte_tokenizer()).render(CHAT[1:2])
    assert rendered.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nU<|im_end|>"
    )


def test_template_files(tmp_path: Path):
    jinja, sglang = tmp_path / "t.jinja", tmp_path / "t.json"
    jinja.write_text("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}{{ extra }}")
    turns = {"system": "<s>system", "user": "<s>user", "assistant": "<s>assistant", "sep": "</s>"}
    sglang.write_text(json.dumps(turns | {"name": "mine", "sep_style": "CHATML", "stop_str": ["</s>", "<s>"]}))
    assert load_template(str(jinja), byte_tokenizer()).render(CHAT[:1], variables={"extra": 1}) == "system:S;1"
    template = load_template(str(sglang), byte_tokenizer())
    assert template.render(CHAT[:2]) == "<s>system\nS</s>\n<s>user\nU</s>\n<s>assistant\n"
    assert template.stop == ("</s>", "<s>")


BAD_TEMPLATES = {"t.jinja": "{% for %}", "a.json": "[]", "b.json": '{"sep_style": "LLAMA2"}', "c.json": "{"}


@pytest.mark.parametrize("name", ["no-such-template", *BAD_TEMPLATES])
def test_bad_templates_are_refused_at_the_start(name: str, tmp_path: Path):
    path = tmp_path / name
    if name in BAD_TEMPLATES:
        path.write_text(BAD_TEMPLATES[name])
    with pytest.raises(LoadError, match="--chat-template"):
        load_template(str(path), byte_tokenizer())


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "messages", "tools", "add_generation_prompt"])
def test_a_request_cannot_say_how_to_render(name: str):
    with pytest.raises(RequestError, match=f"chat_template_kwargs must not hold '{name}'"):
        load_template("chatml", byte_tokenizer()).render(CHAT, variables={name: "x"})


def test_without_a_template_there_is_no_chat():
    with pytest.raises(RequestError, match="this model has no chat template: start its server with --chat-template"):
        load_template(None, byte_tokenizer()).render(CHAT)


# -- bodies -------------------------------------------------------------------------------------------------------------


def settings(**defaults: Any) -> Settings:
    tokenizer = byte_tokenizer()
    return Settings(
        tokenizer=tokenizer,
        vocabulary=Vocabulary(tokenizer),
        template=load_template("chatml", tokenizer),
        call_form=None,
        reasoning=None,
        defaults=defaults,
        model="base",
        adapters=["pirate"],
        stream_interval=1,
    )


@pytest.mark.parametrize(
    ("fields", "adapter"),
    [({"model": "base:pirate"}, "pirate"), ({"model": "pirate"}, "pirate"), ({"lora_path": "pirate"}, "pirate"),
     ({"model": "ft:gpt-x"}, None), ({}, None)],
)  # fmt: skip
def test_an_adapter_is_named_by_its_field_or_as_the_model(fields: dict[str, str], adapter: str | None):
    asked = read_completions({"prompt": "a", **fields}, settings())
    assert [answer.request.lora_path for answer in asked.answers] == [adapter]


def test_the_models_own_sampling_parameters_stand_below_the_bodys():
    asked = read_chat(
        {"messages": CHAT, "top_p": 0.5, "temperature": None}, settings(temperature=0.6, top_p=0.9, top_k=20)
    )
    params = asked.call.params
    assert (params.temperature, params.top_p, params.top_k, params.max_new_tokens) == (0.6, 0.5, 20, None)
    assert params.stop == ("<|im_end|>",), "the template's stop is missing"


# -- messages and tokens ------------------------------------------------------------------------------------------------


def test_messages_take_the_shape_of_templates():
    call = {"id": "c", "type": "function", "function": {"name": "stop", "arguments": '{"a": 1}'}}
    given = read_messages([
        {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "content": "3", "tool_call_id": "c"},
    ])  # fmt: skip
    assert given == [
        {"role": "system", "content": "a b"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call | {"function": {"name": "stop", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "c"},
    ]


def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    names = ["\u2581Hi", "<0xC3>", "<0xA9>", "é"]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<｜end｜>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_the_bytes_of_tokens():
    spell = Vocabulary(sentencepiece_tokenizer()).spell
    assert [spell(token) for token in range(5)] == [b" Hi", b"\xc3", b"\xa9", "é".encode(), "<｜end｜>".encode()]
    bytewise = Vocabulary(byte_tokenizer())
    assert b"".join(bytewise.spell(token) for token in byte_tokenizer()("é \n𝄞")["input_ids"]) == "é \n𝄞".encode()  # pyright: ignore
    assert bytewise.text(byte_tokenizer()("é")["input_ids"][0]) == "\ufffd"  # pyright: ignore
