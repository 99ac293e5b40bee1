"""Streams: their framing, and what becomes of a request whose sender changes its mind or goes away."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from .support import ServerProcess

LONG = {"temperature": 0, "max_new_tokens": 1500, "ignore_eos": True}


def events(
    server: ServerProcess, text: Any = "Hello", sampling_params: dict[str, Any] | None = None, **body: Any
) -> Iterator[str]:
    """The `data:` payloads of a stream, framed as the protocol says."""
    params = {"temperature": 0, "max_new_tokens": 12, "ignore_eos": True} | (sampling_params or {})
    with (
        server.client() as client,
        client.stream(
            "POST", "/generate", json={"text": text, "stream": True, "sampling_params": params} | body
        ) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        buffer = ""
        for piece in response.iter_text():
            buffer += piece
            while "\n\n" in buffer:
                event, buffer = buffer.split("\n\n", 1)
                assert event.startswith("data: ")
                assert "\n" not in event
                yield event.removeprefix("data: ")
        assert buffer == ""


def chunks(*arguments: Any, **options: Any) -> list[dict[str, Any]]:
    *found, last = events(*arguments, **options)
    assert last == "[DONE]"
    return [json.loads(event) for event in found]


def test_text_is_cumulative_and_ends_as_the_whole_answer(server: ServerProcess):
    found = chunks(server)
    assert len(found) == 12
    texts = [chunk["text"] for chunk in found]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert [chunk["meta_info"]["completion_tokens"] for chunk in found] == list(range(1, 13))
    assert [chunk["meta_info"]["finish_reason"] is None for chunk in found] == [True] * 11 + [False]
    assert texts[-1] == server.generate("Hello", max_new_tokens=12, ignore_eos=True)["text"]
    assert len({chunk["meta_info"]["id"] for chunk in found}) == 1


def test_newlines_in_the_text_do_not_break_the_frame(server: ServerProcess):
    text = "a\n\nb\r\n\ndata: c\u2028d"
    found = chunks(
        server, sampling_params={"regex": "a\n\n(b)\r\n\ndata: c\u2028d", "max_new_tokens": 60, "ignore_eos": False}
    )
    assert found[-1]["text"] == text


def test_the_interval(server: ServerProcess):
    found = chunks(server, sampling_params={"stream_interval": 5})
    assert [chunk["meta_info"]["completion_tokens"] for chunk in found] == [5, 10, 12]


def test_logprobs_are_cumulative(server: ServerProcess):
    # Fails for the same reason as test_logprobs.py's test of streams: the last chunk has the input's entries twice.
    found = chunks(server, return_logprob=True, logprob_start_len=0)
    whole = server.generate("Hello", max_new_tokens=12, ignore_eos=True, return_logprob=True, logprob_start_len=0)[
        "meta_info"
    ]
    for n, chunk in enumerate(found, 1):
        meta = chunk["meta_info"]
        assert len(meta["output_token_logprobs"]) == n
        assert len(meta["input_token_logprobs"]) == meta["prompt_tokens"]
    assert [t for _, t, _ in found[-1]["meta_info"]["output_token_logprobs"]] == [
        t for _, t, _ in whole["output_token_logprobs"]
    ]


def test_a_batch_says_whose_chunk_it_is(server: ServerProcess):
    found = chunks(server, ["Hello", "Bye"])
    last = {chunk["index"]: chunk["text"] for chunk in found}
    assert last == {
        i: server.generate(t, max_new_tokens=12, ignore_eos=True)["text"] for i, t in enumerate(["Hello", "Bye"])
    }


def test_an_error_after_the_headers_is_an_event(server: ServerProcess):
    (error,) = chunks(server, sampling_params={"regex": "("})
    assert "regex" in error["error"]["message"]


def test_concurrent_streams_do_not_mix(server: ServerProcess):
    prompts = [f"Tell me about number {n}." for n in range(8)]
    alone = [chunks(server, prompt)[-1]["text"] for prompt in prompts]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda prompt: chunks(server, prompt)[-1]["text"], prompts))
    assert together == alone


# -- changing one's mind ------------------------------------------------------------------------------------------------


def test_a_streaming_client_that_goes_away_frees_its_slots(server: ServerProcess):
    server.post("/flush_cache")
    stream = events(server, "Count for ever.", LONG)
    next(stream)
    assert server.state()["used_tokens"] > 0
    stream.close()
    server.wait_until_idle()
    assert server.state()["cached_tokens"] < LONG["max_new_tokens"], "it went on to its end"


def test_a_waiting_client_that_goes_away_frees_its_slots(server: ServerProcess):
    server.post("/flush_cache")
    body = json.dumps({"text": "Count for ever.", "sampling_params": LONG}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /generate HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        server.wait_until(lambda state: state["running_requests"] == 1)
    server.wait_until_idle()
    assert server.state()["cached_tokens"] < LONG["max_new_tokens"], "it went on to its end"


def test_a_client_that_goes_away_in_the_middle_of_its_body(server: ServerProcess):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f'POST /generate HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99\r\n\r\n{{"te'.encode())
    assert server.generate()["text"]


def test_abort_ends_with_what_there_is(server: ServerProcess):
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(server.post, "/generate", text="Count.", rid="mine-1", sampling_params=LONG)
        server.wait_until(lambda state: state["running_requests"] == 1)
        assert (
            server.post("/abort_request", rid="mine").status_code,
            server.post("/abort_request", rid="no").text,
        ) == (200, "")
        response = answer.result()
    assert response.status_code == 200
    assert response.json()["meta_info"]["finish_reason"]["type"] == "abort"
    assert response.json()["meta_info"]["completion_tokens"] < 1500


def test_abort_all_reaches_waiting_and_streaming_requests(server: ServerProcess):
    with ThreadPoolExecutor(20) as threads:
        answers = [threads.submit(server.post, "/generate", text=f"{n}", sampling_params=LONG) for n in range(18)]
        stream = threads.submit(chunks, server, "Count.", LONG)
        server.wait_until(lambda state: state["running_requests"] + state["waiting_requests"] == 19)
        assert server.post("/abort_request", abort_all=True).status_code == 200
        reasons = [answer.result().json()["meta_info"]["finish_reason"]["type"] for answer in answers]
        assert reasons == ["abort"] * 18
        assert stream.result()[-1]["meta_info"]["finish_reason"]["type"] == "abort"


def test_flush_cache_is_refused_while_busy(server: ServerProcess):
    stream = events(server, "Count for ever.", LONG)
    next(stream)
    assert server.post("/flush_cache").status_code == 400
    stream.close()


def test_a_rid_in_use_is_refused(server: ServerProcess):
    stream = events(server, "Count for ever.", LONG, rid="taken")
    next(stream)
    response = server.post("/generate", text="a", rid="taken")
    assert response.status_code == 400
    assert "'taken' is in use" in response.json()["error"]["message"]
    stream.close()


@pytest.mark.parametrize("stream", [False, True])
def test_of_many_with_one_rid_each_gets_an_answer(server: ServerProcess, stream: bool):
    def ask(_: int) -> str:
        params = {"temperature": 0, "max_new_tokens": 20}
        return server.post("/generate", text="Hello", rid="same", stream=stream, sampling_params=params).text

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(ask, range(48)))
    assert all("completion_tokens" in answer or "in use" in answer for answer in answers)


def test_how_far_a_prompt_is_read_is_told(server: ServerProcess):
    """Many long prompts at once, so that one of them is being read whenever one looks."""
    prompts = [[n, *range(300, 300 + 3000)] for n in range(6)]
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(
            server.post, "/generate", input_ids=prompts, sampling_params={"max_new_tokens": 1, "temperature": 0}
        )
        state: dict[str, Any] = server.wait_until(lambda state: state["prefilling"])
        answer.result()
    assert all(each["prompt_tokens"] == 3001 for each in state["prefilling"])
    assert all(each["cached_tokens"] <= each["computed_tokens"] < 3001 for each in state["prefilling"])
    assert server.state()["prefilling"] == []
