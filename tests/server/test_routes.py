"""Every route answers as SGLang's does, and bad input gets a sentence."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .support import ServerProcess

PROMPT = "The capital of France is"


def test_one_prompt(server: ServerProcess):
    answer = server.generate()
    meta = answer["meta_info"]
    assert isinstance(answer["text"], str)
    assert len(answer["output_ids"]) == meta["completion_tokens"]
    assert 0 <= meta["cached_tokens"] < meta["prompt_tokens"]
    assert meta["finish_reason"]["type"] in ("stop", "length")
    assert meta["e2e_latency"] > 0
    assert re.fullmatch("[0-9a-f]{32}", meta["id"])


def test_samples_share_their_prompt(server: ServerProcess):
    text = "Four samples of one prompt that nobody has given before, and which is computed once:"
    metas = [answer["meta_info"] for answer in server.generate(text, n=4, temperature=1.0)]
    assert len(metas) == 4
    assert sorted(meta["cached_tokens"] for meta in metas)[1:] == [metas[0]["prompt_tokens"] - 1] * 3


def test_the_same_prompt_again_comes_from_the_cache(server: ServerProcess):
    server.generate("Once upon a time there was a cache")
    meta = server.generate("Once upon a time there was a cache")["meta_info"]
    assert meta["cached_tokens"] == meta["prompt_tokens"] - 1


def test_put_is_post(server: ServerProcess):
    with server.client() as client:
        assert client.put("/generate", json={"text": "a", "sampling_params": {"max_new_tokens": 1}}).status_code == 200


def test_a_batch_and_samples(server: ServerProcess):
    assert [a["text"] for a in server.generate([PROMPT, "Hello"])] == [
        server.generate(t)["text"] for t in (PROMPT, "Hello")
    ]
    samples = server.generate(n=3)
    assert [sample["meta_info"]["id"][-2:] for sample in samples] == ["_0", "_1", "_2"]
    assert len(server.generate(["a", "b"], n=2)) == 4


def test_logprobs(server: ServerProcess):
    answer = server.generate(
        return_logprob=True, logprob_start_len=1, top_logprobs_num=2, return_text_in_logprobs=True, max_new_tokens=3,
        ignore_eos=True,
    )  # fmt: skip
    meta = answer["meta_info"]
    assert meta["prompt_tokens"] == 1 + len(meta["input_token_logprobs"])
    assert meta["input_token_logprobs"][0][0] is None
    assert meta["input_top_logprobs"][0] is None
    assert [entry[1] for entry in meta["output_token_logprobs"]] == answer["output_ids"]
    assert meta["output_token_logprobs_length"] == len(answer["output_ids"])
    for (value, token, text), top in zip(meta["output_token_logprobs"], meta["output_top_logprobs"], strict=True):
        assert top[0] == [value, token, text]
        assert value <= 0
    assert server.generate(return_logprob=True)["meta_info"]["output_token_logprobs"][0][2] is None


def test_a_regex(server: ServerProcess):
    assert re.fullmatch(r"(Paris|Rome), \d\d", server.generate(regex=r"(Paris|Rome), \d\d", max_new_tokens=30)["text"])


def test_text_that_is_not_ascii(server: ServerProcess):
    assert server.generate(regex="你好👩‍👩‍👧", max_new_tokens=60)["text"] == "你好👩‍👩‍👧"


def test_many_at_once_get_what_they_get_alone(server: ServerProcess):
    prompts = [
        f"The capital of {name} is" for name in ("France", "Spain", "Peru", "Chad", "Fiji", "Iran", "Laos", "Mali")
    ]
    alone = [server.generate(prompt)["text"] for prompt in prompts]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda prompt: server.generate(prompt)["text"], prompts * 3)) == alone * 3


# -- information --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/health", "/health_generate"])
def test_health(server: ServerProcess, path: str):
    assert (server.get(path).status_code, server.get(path).text) == (200, "")


def test_health_generate_is_true_while_busy(server: ServerProcess):
    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(server.generate, max_new_tokens=400, ignore_eos=True)
        assert server.get("/health_generate").status_code == 200
        busy.result()


@pytest.mark.parametrize("path", ["/get_model_info", "/model_info"])
def test_model_info(server: ServerProcess, path: str):
    info = server.get(path).json()
    assert (info["model_path"], info["is_generation"]) == ("tiny-chat", True)
    assert info["tokenizer_path"] == "tiny-chat"


@pytest.mark.parametrize("path", ["/get_server_info", "/server_info"])
def test_server_info(server: ServerProcess, path: str):
    info = server.get(path).json()
    assert (info["status"], info["max_total_num_tokens"], info["max_running_requests"]) == ("ready", 20000, 16)
    assert info["model_path"] == "tiny-chat"
    state = info["internal_states"][0]
    assert state["free_tokens"] + state["cached_tokens"] == 20000
    assert not any("key" in name for name in info)


def test_models(server: ServerProcess):
    listing = server.get("/v1/models").json()
    assert listing["object"] == "list"
    assert (listing["data"][0]["id"], listing["data"][0]["object"]) == ("tiny-chat", "model")


def test_flush_cache(server: ServerProcess):
    server.generate()
    assert server.state()["cached_tokens"] > 0
    response = server.post("/flush_cache")
    assert (response.status_code, response.text.startswith("Cache flushed.")) == (200, True)
    assert server.state()["cached_tokens"] == 0
    assert server.get("/flush_cache").status_code == 200


# -- bad input ----------------------------------------------------------------------------------------------------------

BAD: list[tuple[bytes | dict[str, Any], int, str]] = [
    (b"{", 400, "not valid JSON"),
    (b"", 400, "not valid JSON"),
    (b"\xff\xfe", 400, "not valid JSON"),
    (b"[" * 100_000, 400, "not valid JSON"),
    (b"1" * 5000, 400, "not valid JSON"),
    (b'{"text": "a", "rid": "\\ud800"}', 400, "lone surrogate"),
    (b'{"text": "a", "\\udfff": 1}', 400, "lone surrogate"),
    (b'{"text": "a", "sampling_params": {"stop_regex": "\\ud800"}}', 400, "lone surrogate"),
    ({}, 400, "Either text or input_ids"),
    ({"text": "a", "unknown": 1}, 400, "unknown field `unknown`"),
    ({"text": "a", "sampling_params": {"max_tokens": 1}}, 400, "unknown field `max_tokens`"),
    ({"text": "a", "sampling_params": {"temperature": "hot"}}, 400, "temperature must be a number"),
    ({"text": "a", "sampling_params": {"regex": "("}}, 400, "regex"),
    ({"text": "a", "sampling_params": {"json_schema": "{"}}, 400, "json_schema"),
    ({"text": "word " * 20_000}, 400, "longer than the model's context length"),
    ({"input_ids": [10**9]}, 400, "token ids must be in"),
    ({"input_ids": []}, 400, "empty"),
    ({"text": ["a", "b"], "rid": ["x", "x"]}, 400, "in use"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "message"), BAD, ids=lambda value: f"{value!r:.50}")
def test_bad_bodies(server: ServerProcess, body: bytes | dict[str, Any], status: int, message: str):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with server.client() as client:
        response = client.post("/generate", content=content)
    assert response.status_code == status
    assert message in response.json()["error"]["message"]


def test_a_surrogate_pair_is_a_character(server: ServerProcess):
    with server.client() as client:
        response = client.post(
            "/generate", content=b'{"text": "\\ud83d\\ude00", "sampling_params": {"max_new_tokens": 1}}'
        )
    assert response.status_code == 200


def test_unknown_routes_and_methods(server: ServerProcess):
    assert (server.get("/nonsense").status_code, server.get("/nonsense").json()) == (404, {"detail": "Not Found"})
    assert server.get("/generate").status_code == 405
    assert server.post("/get_model_info").status_code == 405


@pytest.mark.parametrize("body", [{}, {"rid": ""}, {"rid": 5}, {"abort_all": "yes"}, []])
def test_a_bad_abort(server: ServerProcess, body: Any):
    with server.client() as client:
        response = client.post("/abort_request", json=body)
    assert response.status_code == 400
    assert "abort_request takes" in response.json()["error"]["message"]
