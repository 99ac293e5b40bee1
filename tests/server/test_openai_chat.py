"""`/v1/chat/completions`, as the official client sees it: messages, formats, tools, thoughts, streams and errors."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from .support import ServerProcess, running_server

QUESTION = [{"role": "user", "content": "What is the capital of Japan?"}]
PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of Japan?<|im_end|>\n<|im_start|>assistant\n"
)
ANSWER = "The capital of Japan is Tokyo."
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Of a city.", "parameters": CITY}}
STOP = {"type": "function", "function": {"name": "stop"}}
CALL = r'<tool_call>\n\{"name": "weather", "arguments": \{"city": "Oslo"\}\}\n</tool_call>'
THINKING_TEMPLATE = """
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}{{ message.tool_calls | tojson if message.tool_calls }}<|im_end|>
{% endfor %}
{%- if tools %}<tool_call>{{ tools | tojson }} arguments{% endif %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is false %}<think>

</think>

{% elif enable_thinking %}<think>
{% endif %}{% endif %}"""


def connect(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with connect(server) as client:
        yield client


@pytest.fixture(scope="module")
def thinking_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for a model that thinks and calls tools in Qwen's form, as far as its flags go."""
    folder = tmp_path_factory.mktemp("thinking")
    (folder / "template.jinja").write_text(THINKING_TEMPLATE)
    flags = ["--chat-template", str(folder / "template.jinja"), "--reasoning-parser", "qwen3", "--enable-cache-report"]
    with running_server(
        folder, "--model-path", "tiny-chat", "--max-total-tokens", "8000", "--served-model-name", "org/thinker", *flags
    ) as server:
        yield server


@pytest.fixture
def thinker(thinking_server: ServerProcess) -> Iterator[openai.OpenAI]:
    with connect(thinking_server) as client:
        yield client
    thinking_server.wait_until_idle()


def chat(client: openai.OpenAI, messages: Any = QUESTION, **options: Any) -> Any:
    """An answer, or with `stream` its chunks."""
    greedy = {"temperature": 0, "max_tokens": 60} | options
    return client.chat.completions.create(model="any", messages=messages, **greedy)


def only(answer: Any) -> Any:
    (choice,) = answer.choices
    return choice


# -- messages -----------------------------------------------------------------------------------------------------------


def test_an_answer_is_that_of_generate_on_the_rendered_prompt(server: ServerProcess, client: openai.OpenAI):
    answer = chat(client)
    native = server.generate(PROMPT, max_new_tokens=60)
    choice, meta = only(answer), native["meta_info"]
    assert (answer.object, answer.model, answer.id[:9]) == ("chat.completion", "any", "chatcmpl-")
    assert (choice.message.role, choice.message.content) == ("assistant", native["text"] == ANSWER and ANSWER)
    assert (choice.message.tool_calls, choice.message.reasoning_content, choice.logprobs) == (None, None, None)
    assert (choice.finish_reason, choice.matched_stop) == ("stop", meta["finish_reason"]["matched"])
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        meta["prompt_tokens"],
        meta["completion_tokens"],
    )


def test_the_template_is_told_and_tokenize_takes_messages(server: ServerProcess):
    info = server.get("/get_model_info").json()
    assert "<|im_start|>" in info["chat_template"]
    assert (info["bos_token"], info["eos_token"]) == (None, "<|im_end|>")
    assert server.post("/tokenize", messages=QUESTION).json() == server.post("/tokenize", prompt=PROMPT).json()


def test_parts_of_text(client: openai.OpenAI):
    parts = [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": "of Japan?"}]
    assert only(chat(client, [{"role": "user", "content": parts}])).message.content == ANSWER


def test_a_message_is_continued(server: ServerProcess, client: openai.OpenAI):
    begun = [*QUESTION, {"role": "assistant", "content": "The capital of Japan"}]
    answer = chat(client, begun, extra_body={"continue_final_message": True})
    assert only(answer).message.content == " is Tokyo."
    assert answer.usage.prompt_tokens == server.generate(PROMPT + "The capital of Japan")["meta_info"]["prompt_tokens"]


def test_a_conversation_of_turns(server: ServerProcess, client: openai.OpenAI):
    turns = [*QUESTION, {"role": "assistant", "content": ANSWER}, {"role": "user", "content": "And of Peru?"}]
    rendered = f"{PROMPT}{ANSWER}<|im_end|>\n<|im_start|>user\nAnd of Peru?<|im_end|>\n<|im_start|>assistant\n"
    assert only(chat(client, turns)).message.content == server.generate(rendered, max_new_tokens=60)["text"]


def test_limits(client: openai.OpenAI):
    for options in ({"max_tokens": 2}, {"max_tokens": 9, "max_completion_tokens": 2}):
        answer = chat(client, **options)
        assert (answer.usage.completion_tokens, only(answer).finish_reason) == (2, "length")
    assert only(chat(client, stop=" Tokyo")).message.content == "The capital of Japan is"
    assert only(chat(client, max_tokens=None)).message.content == ANSWER


def test_samples_of_a_seed(client: openai.OpenAI):
    options = {"n": 3, "temperature": 5, "seed": 1, "max_tokens": 8}
    texts = [choice.message.content for choice in chat(client, **options).choices]
    assert len(set(texts)) == 3
    assert [choice.message.content for choice in chat(client, **options).choices] == texts


def test_logprobs_are_those_of_generate(server: ServerProcess, client: openai.OpenAI):
    found = only(chat(client, logprobs=True, top_logprobs=2)).logprobs.content
    native = server.generate(
        PROMPT, max_new_tokens=60, return_logprob=True, top_logprobs_num=2, return_text_in_logprobs=True
    )["meta_info"]
    assert [(item.logprob, item.token) for item in found] == [
        (v, text) for v, _, text in native["output_token_logprobs"]
    ]
    assert [[(top.logprob, top.token) for top in item.top_logprobs] for item in found] == [
        [(value, text) for value, _, text in top] for top in native["output_top_logprobs"]
    ]
    assert b"".join(bytes(item.bytes) for item in found[:-1]).decode() == ANSWER
    assert only(chat(client, logprobs=True, max_tokens=1)).logprobs.content[0].top_logprobs == []


# -- formats ------------------------------------------------------------------------------------------------------------


class Capital(BaseModel):
    city: Literal["Tokyo", "Oslo"]
    known: bool


def test_a_pydantic_model(client: openai.OpenAI):
    answer = client.chat.completions.parse(
        model="any", messages=QUESTION, response_format=Capital, temperature=0, max_tokens=300
    )  # pyright: ignore
    parsed = only(answer).message.parsed
    assert isinstance(parsed, Capital)


def test_any_object(client: openai.OpenAI):
    answer = chat(client, response_format={"type": "json_object"}, max_tokens=100, temperature=1, seed=2)
    assert only(answer).message.content.startswith("{")
    assert only(answer).finish_reason == "length" or isinstance(json.loads(only(answer).message.content), dict)


@pytest.mark.parametrize(
    "options",
    [
        {"extra_body": {"regex": "4{2}"}},
        {"extra_body": {"ebnf": 'root ::= "44"'}},
        {"extra_body": {"json_schema": '{"const": 44}'}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"const": 44}, "strict": True},
            }
        },
        {"response_format": {"type": "structural_tag", "format": {"type": "const_string", "value": "44"}}},
    ],
)
def test_constraints(client: openai.OpenAI, options: dict[str, Any]):
    assert only(chat(client, **options)).message.content == "44"


# -- tools --------------------------------------------------------------------------------------------------------------


def function_of(call: Any) -> tuple[str, Any]:
    assert (call.type, call.id[:5]) == ("function", "call_")
    return call.function.name, json.loads(call.function.arguments)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=str)
def test_a_forced_call(client: openai.OpenAI, thinker: openai.OpenAI, choice: Any):
    """In the form of the template's, or as an array where it has none: what the client sees is the same."""
    for each in (client, thinker):
        options = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}, "parallel_tool_calls": False}
        answer = only(chat(each, tools=[WEATHER], tool_choice=choice, max_tokens=120, **options))
        name, arguments = function_of(answer.message.tool_calls[0])
        assert (name, answer.finish_reason, answer.message.content) == ("weather", "tool_calls", None)
        assert arguments["city"] in ("Rome", "Oslo")


def test_a_free_call_is_read_out_of_the_text(thinker: openai.OpenAI):
    message = only(chat(thinker, tools=[WEATHER, STOP], extra_body={"regex": f"Well\\. {CALL}"})).message
    assert message.content == "Well."
    assert [function_of(call) for call in message.tool_calls] == [("weather", {"city": "Oslo"})]


@pytest.mark.parametrize("options", [{"tool_choice": "none", "tools": [WEATHER]}, {"tools": [STOP]}, {}], ids=str)
def test_what_calls_no_tool_of_the_request_is_text(thinker: openai.OpenAI, options: dict[str, Any]):
    body = {"regex": CALL, "chat_template_kwargs": {"enable_thinking": False}}
    message = only(chat(thinker, **options, extra_body=body)).message
    assert message.content == '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert message.tool_calls is None


def test_the_template_sees_tools_and_calls_of_the_past(thinking_server: ServerProcess, thinker: openai.OpenAI):
    call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    turns = [
        *QUESTION,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "7", "tool_call_id": "c"},
    ]
    sent = thinking_server.post("/tokenize", messages=turns, tools=[WEATHER]).json()
    text = thinking_server.post("/detokenize", tokens=sent["tokens"], skip_special_tokens=False).json()["text"]
    assert '"function": {"name": "weather", "arguments": {"city": "Oslo"}}' in text
    assert '"description": "Of a city."' in text
    assert chat(thinker, turns, tools=[WEATHER], max_tokens=1).usage.prompt_tokens == sent["count"]


# -- thoughts -----------------------------------------------------------------------------------------------------------


def test_thoughts_apart_from_what_is_said(thinker: openai.OpenAI):
    wanted = {"type": "structural_tag", "format": {"type": "const_string", "value": "44"}}
    assert only(chat(thinker, response_format=wanted)).message.content.endswith("44")
    cut = only(chat(thinker, max_tokens=5, extra_body={"chat_template_kwargs": {"enable_thinking": True}}))
    assert (cut.message.content, cut.finish_reason) == (None, "length")
    assert cut.message.reasoning_content
    together = {"chat_template_kwargs": {"enable_thinking": True}, "separate_reasoning": False}
    assert only(chat(thinker, max_tokens=5, extra_body=together)).message.content == cut.message.reasoning_content


def test_thinking_is_switched_off_by_the_template(thinker: openai.OpenAI):
    off = {"chat_template_kwargs": {"enable_thinking": False}, "regex": "<think>no</think>"}
    message = only(chat(thinker, extra_body=off)).message
    assert (message.content, message.reasoning_content) == ("<think>no</think>", None)


@pytest.mark.parametrize("stream_reasoning", [True, False])
def test_thoughts_in_a_stream(thinker: openai.OpenAI, stream_reasoning: bool):
    body = {"chat_template_kwargs": {"enable_thinking": True}, "stream_reasoning": stream_reasoning}
    whole = only(chat(thinker, max_tokens=6, extra_body=body)).message.reasoning_content
    deltas = [only(chunk).delta for chunk in chat(thinker, max_tokens=6, stream=True, extra_body=body)]
    thoughts = [delta.reasoning_content for delta in deltas if getattr(delta, "reasoning_content", None)]
    assert "".join(thoughts) == whole
    assert (len(thoughts) > 1) == stream_reasoning


def test_cached_tokens_are_told_on_demand(client: openai.OpenAI, thinker: openai.OpenAI):
    assert chat(client).usage.prompt_tokens_details is None
    chat(thinker, max_tokens=1)
    usage = chat(thinker, max_tokens=1).usage
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1


# -- streams ------------------------------------------------------------------------------------------------------------


def test_a_stream(client: openai.OpenAI):
    whole = chat(client, logprobs=True)
    first, *chunks, last, usage = chat(client, logprobs=True, stream=True, stream_options={"include_usage": True})
    assert (only(first).delta.role, only(first).delta.content, only(first).finish_reason) == ("assistant", "", None)
    assert "".join(only(chunk).delta.content for chunk in chunks) == ANSWER
    assert all(only(chunk).finish_reason is None for chunk in chunks)
    items = [item for chunk in chunks for item in only(chunk).logprobs.content]
    assert items == only(whole).logprobs.content
    assert (only(last).finish_reason, only(last).matched_stop) == ("stop", only(whole).matched_stop)
    assert only(last).delta.content is None
    assert (usage.choices, usage.usage) == ([], whole.usage)
    assert {chunk.object for chunk in (first, *chunks, last, usage)} == {"chat.completion.chunk"}


def test_a_stream_of_samples(client: openai.OpenAI):
    chunks = list(chat(client, n=2, stream=True))
    for index in range(2):
        own = [only(chunk) for chunk in chunks if only(chunk).index == index]
        assert [choice.delta.role for choice in own if choice.delta.role] == ["assistant"]
        assert "".join(choice.delta.content or "" for choice in own) == ANSWER
        assert own[-1].finish_reason == "stop"


def test_a_stream_of_a_call(client: openai.OpenAI):
    options = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 120}
    wanted = only(chat(client, **options)).message.tool_calls[0].function
    chunks = [only(chunk) for chunk in chat(client, **options, stream=True)]
    pieces = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
    assert {piece.index for piece in pieces} == {0}
    head, *rest = pieces
    assert (head.type, head.function.name, head.function.arguments) == ("function", "weather", "")
    assert all(piece.id is None and piece.function.name is None for piece in rest)
    assert "".join(piece.function.arguments for piece in rest) == wanted.arguments
    assert len(rest) > 1
    assert chunks[-1].finish_reason == "tool_calls"


def test_the_clients_own_stream_of_a_pydantic_model(client: openai.OpenAI):
    with client.chat.completions.stream(
        model="any", messages=QUESTION, response_format=Capital, temperature=0, max_tokens=300
    ) as stream:  # pyright: ignore
        assert isinstance(only(stream.get_final_completion()).message.parsed, Capital)


def test_async(server: ServerProcess):
    async def ask() -> tuple[list[str], str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            answers = await asyncio.gather(*(chat(client) for _ in range(4)))  # pyright: ignore
            stream = await chat(client, stream=True)  # pyright: ignore
            return [only(a).message.content for a in answers], "".join(
                [only(c).delta.content or "" async for c in stream]
            )

    assert asyncio.run(ask()) == ([ANSWER] * 4, ANSWER)


def test_a_client_that_goes_away_ends_its_request(server: ServerProcess, client: openai.OpenAI):
    server.post("/flush_cache")
    stream = chat(client, max_tokens=1500, stream=True, extra_body={"ignore_eos": True})
    assert len(list(itertools.islice(stream, 3))) == 3
    stream.close()
    server.wait_until_idle()
    assert server.state()["cached_tokens"] < 1500, "it went on to its end"


# -- bad input ----------------------------------------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"messages": []}, "messages", "messages must be a non-empty array"),
    ({"messages": ["hi"]}, "messages[0]", "must be an object"),
    ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role", "must be one of assistant, developer"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "must be a string or an array"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]", "this model takes text only"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]", "must be"),
    ({"extra_body": {"continue_final_message": True}}, "messages", "needs a last message of the assistant's"),
    ({"extra_body": {"chat_template_kwargs": {"chat_template": "x"}}}, "chat_template_kwargs", "must not hold"),
    ({"extra_body": {"chat_template_kwargs": []}}, "chat_template_kwargs", "must be an object"),
    ({"max_completion_tokens": -1}, "max_completion_tokens", "max_completion_tokens must be at least 0"),
    ({"top_logprobs": 2}, "top_logprobs", "needs logprobs: true"),
    ({"logprobs": True, "top_logprobs": 10**6}, "top_logprobs", "top_logprobs must be in"),
    ({"response_format": {"type": "xml"}}, "response_format", "response_format.type must be"),
    ({"response_format": {"type": "json_schema"}}, "response_format", "must be an object that holds a schema"),
    ({"response_format": {"type": "json_object"}, "extra_body": {"regex": "a"}}, None, "Only one of"),
    ({"response_format": {"type": "json_object"}, "extra_body": {"json_schema": "{}"}}, "response_format", "cannot both"),
    ({"tools": [{"type": "web"}]}, "tools[0]", "must be"),
    ({"tools": [WEATHER, WEATHER]}, "tools", "another tool of the name 'weather'"),
    ({"tools": [{"type": "function", "function": {"name": 'a"b'}}]}, "tools[0].function.name", "letters"),
    ({"tools": [WEATHER], "tool_choice": "always"}, "tool_choice", "tool_choice must be"),
    ({"tool_choice": "required"}, "tool_choice", "a tool that is not there; tools: none"),
    ({"tools": [STOP], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "tools: stop"),
    ({"tools": [STOP], "tool_choice": "required", "extra_body": {"regex": "a"}}, "tool_choice", "cannot both"),
    ({"modalities": ["audio"]}, "modalities", "unknown field `modalities`"),
    ({"functions": [{"name": "f"}]}, "functions", "unknown field `functions`"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "message"), BAD, ids=lambda value: f"{value!r:.50}")
def test_wrong_fields(client: openai.OpenAI, fields: dict[str, Any], param: str | None, message: str):
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        chat(client, **{"max_tokens": 4} | fields)
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")
