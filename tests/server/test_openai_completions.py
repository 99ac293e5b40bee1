"""`/v1/completions`, models and tokens, as the official client sees them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from kernel_engine.openai import chat, completions

from .support import ServerProcess

PROMPT = "The capital of France is"


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def complete(client: openai.OpenAI, prompt: Any = PROMPT, **options: Any) -> Any:
    return client.completions.create(model="any", prompt=prompt, **{"temperature": 0, "max_tokens": 8} | options)


def test_text_is_that_of_generate(server: ServerProcess, client: openai.OpenAI):
    answer = complete(client)
    native = server.generate(PROMPT)
    assert (answer.object, answer.model, answer.id[:5]) == ("text_completion", "any", "cmpl-")
    (choice,) = answer.choices
    assert (choice.index, choice.text, choice.logprobs) == (0, native["text"], None)
    assert choice.finish_reason == native["meta_info"]["finish_reason"]["type"]
    assert choice.matched_stop == native["meta_info"]["finish_reason"]["matched"]
    meta = native["meta_info"]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        meta["prompt_tokens"],
        meta["completion_tokens"],
    )
    assert answer.usage.total_tokens == meta["prompt_tokens"] + meta["completion_tokens"]
    assert answer.usage.prompt_tokens_details is None


def test_sixteen_tokens_by_default(client: openai.OpenAI):
    answer = client.completions.create(model="any", prompt=PROMPT, temperature=0, extra_body={"ignore_eos": True})
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (16, "length")  # pyright: ignore


def test_prompts_of_every_kind(server: ServerProcess, client: openai.OpenAI):
    texts = [PROMPT, "Hello"]
    ids = [server.post("/tokenize", prompt=text).json()["tokens"] for text in texts]
    wanted = [server.generate(text)["text"] for text in texts]
    for prompt in (texts, ids):
        assert [choice.text for choice in complete(client, prompt).choices] == wanted
    assert complete(client, ids[1]).choices[0].text == wanted[1]
    assert complete(client, texts).usage.prompt_tokens == sum(map(len, ids))


def test_samples(client: openai.OpenAI):
    options = {"n": 3, "temperature": 5, "seed": 7, "max_tokens": 12, "extra_body": {"ignore_eos": True}}
    answer = complete(client, ["Once", "Twice"], **options)
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert answer.usage.completion_tokens == 72
    texts = [choice.text for choice in answer.choices]
    assert len(set(texts)) == 6
    assert [choice.text for choice in complete(client, ["Once", "Twice"], **options).choices] == texts
    assert answer.usage.prompt_tokens == sum(
        complete(client, prompt).usage.prompt_tokens for prompt in ("Once", "Twice")
    )


def test_echo(client: openai.OpenAI):
    text = complete(client).choices[0].text
    assert complete(client, echo=True).choices[0].text == PROMPT + text
    assert complete(client, echo=True, max_tokens=0).choices[0].text == PROMPT


def test_logprobs_are_those_of_generate(server: ServerProcess, client: openai.OpenAI):
    found = complete(client, logprobs=2, max_tokens=3).choices[0].logprobs
    native = server.generate(
        max_new_tokens=3, return_logprob=True, top_logprobs_num=2, return_text_in_logprobs=True
    )["meta_info"]  # fmt: skip
    assert found.token_logprobs == [value for value, _, _ in native["output_token_logprobs"]]
    assert found.tokens == [text for _, _, text in native["output_token_logprobs"]]
    assert found.text_offset == [0, *(len("".join(found.tokens[:n])) for n in (1, 2))]
    for chosen, value, top, alternatives in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, native["output_top_logprobs"], strict=True
    ):
        assert top == {text: value for value, _, text in alternatives} | {chosen: value}


def test_logprobs_of_an_echoed_prompt(server: ServerProcess, client: openai.OpenAI):
    found = complete(client, logprobs=0, echo=True, max_tokens=0).choices[0].logprobs
    native = server.generate(PROMPT, max_new_tokens=0, return_logprob=True, logprob_start_len=0)["meta_info"]
    assert found.token_logprobs == pytest.approx([value for value, *_ in native["input_token_logprobs"]], abs=1e-5)
    assert found.token_logprobs[0] is None
    assert "".join(found.tokens) == PROMPT
    assert found.top_logprobs is None


def test_stops_and_bias(client: openai.OpenAI):
    text = complete(client).choices[0].text
    assert "." in text
    answer = complete(client, stop=["."]).choices[0]
    assert (answer.text, answer.finish_reason, answer.matched_stop) == (text.split(".")[0], "stop", ".")
    token = client.post("/tokenize", cast_to=object, body={"prompt": " Rome"})["tokens"][0]  # pyright: ignore
    assert complete(client, logit_bias={str(token): 100}, max_tokens=1).choices[0].text == " Rome"


@pytest.mark.parametrize(
    ("extension", "text"),
    [
        ({"regex": "[0-9]{3}"}, r"\d\d\d"),
        ({"ebnf": 'root ::= "yes" | "no"'}, "yes|no"),
        ({"json_schema": '{"enum": [42]}'}, "42"),
        ({"min_tokens": 5, "stop_token_ids": [1], "top_k": 1, "min_p": 0.1, "repetition_penalty": 1.1}, "(?s).*"),
        ({"no_stop_trim": True, "stop": "."}, r".*\."),
    ],
    ids=str,
)
def test_extensions(client: openai.OpenAI, extension: dict[str, Any], text: str):
    assert re.fullmatch(text, complete(client, max_tokens=20, extra_body=extension).choices[0].text)


def test_a_stream(client: openai.OpenAI):
    options = {"logprobs": 0, "echo": True, "n": 2}
    whole = complete(client, **options)
    *chunks, last = complete(client, **options, stream=True, stream_options={"include_usage": True})
    for index in range(2):
        own = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == index]
        assert "".join(choice.text for choice in own) == whole.choices[index].text
        assert [value for c in own for value in c.logprobs.tokens] == whole.choices[index].logprobs.tokens
        assert [value for c in own for value in c.logprobs.text_offset] == whole.choices[index].logprobs.text_offset
        assert [choice.finish_reason for choice in own if choice.finish_reason] == [whole.choices[index].finish_reason]
        assert own[-1].finish_reason
    assert {chunk.id for chunk in chunks} == {last.id}
    assert (last.choices, last.usage) == ([], whole.usage)
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_is_framed_by_the_protocol(server: ServerProcess):
    with server.client() as client:
        body = {"prompt": PROMPT, "stream": True, "max_tokens": 2}
        response = client.post("/v1/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, last, end = response.text.split("\n\n")
    assert (last, end) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["object"] == "text_completion" for event in events)
    assert all("usage" not in json.loads(event.removeprefix("data: ")) for event in events)


def test_async(server: ServerProcess):
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            answers = [complete(client, prompt) for prompt in (PROMPT, "Hello")]  # pyright: ignore[reportArgumentType]
            return [answer.choices[0].text for answer in await asyncio.gather(*answers)]

    assert asyncio.run(ask()) == [server.generate(prompt)["text"] for prompt in (PROMPT, "Hello")]


def test_a_client_that_goes_away_ends_its_request(server: ServerProcess, client: openai.OpenAI):
    server.post("/flush_cache")
    stream = complete(client, max_tokens=1500, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    assert server.state()["running_requests"] == 1
    stream.close()
    server.wait_until_idle()
    assert server.state()["cached_tokens"] < 1500, "it went on to its end"


def test_abort_takes_the_answers_id(server: ServerProcess, client: openai.OpenAI):
    stream = complete(client, max_tokens=1500, stream=True, extra_body={"ignore_eos": True, "rid": "mine"})
    chunks = iter(stream)
    assert next(chunks).id == "mine"
    server.post("/abort_request", rid="mine")
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "abort"


# -- bad input ----------------------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"prompt": ""}, "prompt", "prompt must be a non-empty string"),
    ({"prompt": []}, "prompt", "prompt must not be empty"),
    ({"prompt": [1, "a"]}, "prompt", "prompt must be a non-empty string"),
    ({"prompt": [[1, True]]}, "prompt", "prompt must be"),
    ({"prompt": [10**9]}, None, "token ids must be in"),
    ({"temperature": "hot"}, "temperature", "temperature must be a number"),
    ({"top_p": 0}, "top_p", r"top_p must be in \(0, 1\]"),
    ({"max_tokens": -1}, "max_tokens", "max_tokens must be at least 0, got -1"),
    ({"max_tokens": 4, "min_tokens": 5}, "min_tokens", r"min_tokens must be in \[0, max_tokens\(4\)\], got 5"),
    ({"seed": "x"}, "seed", "seed must be an integer"),
    ({"n": 0}, "n", "n must be in"),
    ({"best_of": 3}, "best_of", "best_of is not supported"),
    ({"suffix": "x"}, "suffix", "suffix is not supported"),
    ({"stop": [""]}, "stop", "stop must not hold an empty string"),
    ({"logprobs": -1}, "logprobs", "logprobs must be in"),
    ({"logprobs": True}, "logprobs", "logprobs must be an integer"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream: true"),
    ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown field `stream_options.x`"),
    ({"regex": "("}, None, "regex"),
    ({"regex": "a", "ebnf": "b"}, None, "Only one of"),
    ({"colour": "red"}, "colour", "unknown field `colour`"),
    ({"lora_path": "no-such"}, None, "no-such"),
    ({"session_params": {"id": "x"}}, "session_params", "session_params is not supported"),
    ({"priority": "high"}, "priority", "priority must be an integer"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "message"), BAD, ids=lambda value: f"{value!r:.40}")
def test_wrong_fields(client: openai.OpenAI, fields: dict[str, Any], param: str | None, message: str):
    body = {"model": "any", "prompt": PROMPT, "max_tokens": 4} | fields
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        client.post("/completions", cast_to=object, body=body)
    assert (caught.value.param, caught.value.type, caught.value.code) == (param, "invalid_request_error", None)


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object(server: ServerProcess, body: bytes):
    with server.client() as client:
        response = client.post("/v1/completions", content=body)
    assert (response.status_code, set(response.json()["error"])) == (400, {"message", "type", "param", "code"})


def test_an_error_in_a_stream(client: openai.OpenAI):
    with pytest.raises(openai.APIError, match="regex"):
        list(complete(client, stream=True, extra_body={"regex": "("}))


# -- models and tokens --------------------------------------------------------------------------------------------------


def test_models(client: openai.OpenAI):
    (model,) = client.models.list().data
    assert (model.id, model.object, model.max_model_len) == ("tiny-chat", "model", 4096)  # pyright: ignore
    assert client.models.retrieve("tiny-chat") == model
    with pytest.raises(openai.NotFoundError, match="the model 'a/b' does not exist; these do: tiny-chat") as caught:
        client.models.retrieve("a/b")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("path", ["", "/v1"])
def test_tokens_there_and_back(server: ServerProcess, path: str):
    texts = ["Hello world", "<|im_start|>é"]
    one = server.post(f"{path}/tokenize", prompt=texts[0]).json()
    assert (one["count"], one["max_model_len"]) == (len(one["tokens"]), 4096)
    two = server.post(f"{path}/tokenize", prompt=texts).json()
    assert (two["tokens"][0], two["count"]) == (one["tokens"], [len(tokens) for tokens in two["tokens"]])
    assert server.post(f"{path}/detokenize", tokens=one["tokens"]).json() == {"text": texts[0]}
    assert server.post(f"{path}/detokenize", tokens=two["tokens"]).json() == {"text": [texts[0], "é"]}
    whole = server.post(f"{path}/detokenize", tokens=two["tokens"], skip_special_tokens=False).json()
    assert whole == {"text": texts}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}), ("/tokenize", {"prompt": 1}), ("/tokenize", {"prompt": ["a", 1]}), ("/tokenize", {"x": 1}),
        ("/tokenize", {"prompt": ["a"], "messages": [{"role": "user", "content": "a"}]}),
        ("/detokenize", {}), ("/detokenize", {"tokens": ["a"]}), ("/detokenize", {"tokens": [[1], 2]}),
        ("/detokenize", {"tokens": [10**6]}), ("/detokenize", {"tokens": [-1]}), ("/detokenize", {"tokens": 5}),
    ],
)  # fmt: skip
def test_bad_tokens(server: ServerProcess, path: str, body: dict[str, Any]):
    response = server.post(path, **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == next(iter(body), "prompt" if path == "/tokenize" else "tokens")


def test_every_field_that_is_read_is_described(server: ServerProcess):
    paths = server.get("/openapi.json").json()["paths"]
    for path, names in (("/v1/completions", completions.FIELDS), ("/v1/chat/completions", chat.FIELDS)):
        body = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert set(body["properties"]) == names
