"""RuntimeEndpoint over real HTTP: what goes over the wire, and what each way of failing becomes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import sgl_jupyter as sgl
from sgl_jupyter.backends import runtime_endpoint
from sgl_jupyter.backends.base import BackendError, BackendUnreachable
from sgl_jupyter.backends.runtime_endpoint import RuntimeEndpoint
from sgl_jupyter.lang.executor import ProgramStopped
from sgl_jupyter.lang.program import begin_state

from .fake_backend import within
from .fake_server import FakeServer, running, serve, sse

META = {"finish_reason": None}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serve() as server:
        yield server


@sgl.function
def qa(s: Any, question: str = "Q") -> None:
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("answer", max_tokens=16))


def test_a_program_runs_over_http(server: FakeServer) -> None:
    state = qa.run(backend=RuntimeEndpoint(server.url + "/"))
    assert state["answer"] == "Hello, world!"
    assert state.get_meta_info("answer") == {
        "prompt_tokens": 3, "completion_tokens": 2, "finish_reason": {"type": "stop", "matched": 0}
    }  # fmt: skip


def test_the_request_is_that_of_sglangs_own_client(server: FakeServer) -> None:
    qa.run(backend=RuntimeEndpoint(server.url)).sync()
    assert server.bodies == [
        {
            "text": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
            "sampling_params": {
                "skip_special_tokens": True, "spaces_between_special_tokens": True, "max_new_tokens": 16,
                "min_new_tokens": 0, "n": 1, "stop": ["<|im_end|>"], "stop_token_ids": [], "temperature": 1.0,
                "top_p": 1.0, "top_k": -1, "min_p": 0.0, "frequency_penalty": 0.0, "presence_penalty": 0.0,
                "ignore_eos": False, "regex": None, "json_schema": None,
            },
            "stream": True,
        }
    ]  # fmt: skip


def test_what_sglangs_client_does_not_know_is_sent_where_it_is_asked_for(server: FakeServer) -> None:
    s = begin_state(RuntimeEndpoint(server.url))
    s += sgl.gen(
        "x",
        seed=7,
        ebnf="root ::= a",
        stop_regex="a+",
        repetition_penalty=1.1,
        logit_bias={5: -1.0},
        return_logprob=True,
    )
    s.sync()
    (body,) = server.bodies
    extras = {"sampling_seed": 7, "ebnf": "root ::= a", "stop_regex": ["a+"], "repetition_penalty": 1.1}
    assert extras.items() <= body["sampling_params"].items()
    assert body["sampling_params"]["logit_bias"] == {"5": -1.0}
    assert body["return_logprob"] is True
    assert "top_logprobs_num" not in body


def test_text_streams_in_slices_of_the_cumulative_text(server: FakeServer) -> None:
    state = qa.run(backend=RuntimeEndpoint(server.url))
    state.sync()
    pieces = [e.text for e in state.log.events if getattr(e, "origin", None) == "generated"]  # type: ignore[union-attr]
    assert pieces == ["Hello", ", wor", "ld!"]


def test_streams_that_were_read_to_their_end_share_one_connection(server: FakeServer) -> None:
    endpoint = RuntimeEndpoint(server.url)
    for _ in range(3):
        qa.run(backend=endpoint).sync()
    assert len(server.connections) == 1


def test_line_separators_inside_a_text_do_not_break_events(server: FakeServer) -> None:
    text = "a\u2028b\x85c\x0bd\r\ne 世界"
    server.respond = lambda body: sse({"text": text, "meta_info": META})
    assert qa.run(backend=RuntimeEndpoint(server.url))["answer"] == text


def test_an_event_may_come_in_pieces(server: FakeServer) -> None:
    server.respond = lambda body: sse(b'data: {"text": "\xe4\xb8', b'\x96", "meta_info": {}}\r\n', b"\r\n")
    assert qa.run(backend=RuntimeEndpoint(server.url))["answer"] == "世"


def test_ub8_n_samples_come_as_a_list(server: FakeServer) -> None:
    s = begin_state(RuntimeEndpoint(server.url))
    s += sgl.gen("x", n=3)
    assert s["x"] == ["Hello, world!"] * 3
    assert s.text() == "Hello, world!"


def test_a_fork_has_its_prefix_cached_by_a_request_for_no_token(server: FakeServer) -> None:
    s = begin_state(RuntimeEndpoint(server.url))
    s += "prefix"
    s.fork(2)
    assert server.bodies == [{"text": "prefix", "sampling_params": {"max_new_tokens": 0}}]


def test_flush_cache_and_server_info(server: FakeServer) -> None:
    endpoint = RuntimeEndpoint(server.url)
    assert sgl.flush_cache(endpoint) is None
    assert server.paths == ["POST /flush_cache"]
    assert sgl.get_server_info(endpoint) == {"status": "ready"}


def test_a_cache_is_flushed_once_the_server_has_put_the_last_request_away(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = [True, True, False]

    async def flush(request: Request) -> Response:
        return PlainTextResponse("Cache flushed.\n", 400 if busy.pop(0) else 200)

    async def always_busy(request: Request) -> Response:
        return PlainTextResponse("busy", 400)

    async def info(request: Request) -> Response:
        return JSONResponse({"model_path": "tiny-chat"})

    with running([Route("/get_model_info", info), Route("/flush_cache", flush, methods=["POST"])]) as url:
        RuntimeEndpoint(url).flush_cache()
        assert busy == []
    monkeypatch.setattr(runtime_endpoint, "SETTLING_SECONDS", 0.05)
    with (
        running([Route("/get_model_info", info), Route("/flush_cache", always_busy, methods=["POST"])]) as url,
        pytest.raises(BackendError, match="busy"),
    ):
        RuntimeEndpoint(url).flush_cache()


def test_a_newer_server_is_asked_at_its_own_routes() -> None:
    async def info(request: Request) -> Response:
        return JSONResponse(
            {"model_path": "Qwen/Qwen3-VL", "has_image_understanding": request.url.path == "/model_info"}
        )

    with running([Route("/model_info", info), Route("/server_info", info)]) as url:
        endpoint = RuntimeEndpoint(url)
        assert (endpoint.model_path, endpoint.sees_images) == ("Qwen/Qwen3-VL", True)
        assert endpoint.get_server_info()["has_image_understanding"] is False
    with running([]) as url, pytest.raises(BackendError, match="404"):
        RuntimeEndpoint(url)


def test_a_server_that_says_that_it_sees_no_images_is_sent_none() -> None:
    async def info(request: Request) -> Response:
        return JSONResponse({"model_path": "tiny-chat", "has_image_understanding": False})

    with running([Route("/get_model_info", info)]) as url:
        s = begin_state(RuntimeEndpoint(url))
        s += sgl.image("https://example.org/cat.png")
        with pytest.raises(sgl.UnsupportedFeature, match="RuntimeEndpoint does not support images"):
            s.sync()


def test_an_adapter_goes_along_where_it_is_asked_for(server: FakeServer) -> None:
    qa.run(backend=RuntimeEndpoint(server.url), lora_path="pirate").sync()
    assert server.bodies[0]["lora_path"] == "pirate"


# Choices


def scores(server: FakeServer, prompt: str, choices: list[str], method: Any = sgl.token_length_normalized) -> Any:
    s = begin_state(RuntimeEndpoint(server.url))
    s += prompt + sgl.select("x", choices, choices_method=method)
    meta_info = s.get_meta_info("x")
    assert meta_info is not None
    return s["x"], meta_info


def test_a_choice_is_scored_by_its_own_tokens_alone(server: FakeServer) -> None:
    decision, meta_info = scores(server, "I need a", [" calculator", " pen now"])
    tokens = [[text for _, _, text in choice] for choice in meta_info["input_token_logprobs"]]
    assert tokens == [[" calculator"], [" pen", " now"]]
    assert meta_info["normalized_prompt_logprobs"] == pytest.approx([-1.1, -0.4])
    assert decision == " pen now"


def test_a_token_across_the_end_of_the_prompt_belongs_to_the_choice(server: FakeServer) -> None:
    _, meta_info = scores(server, "I need a ", ["pen", "!"])  # "a", " " + "pen" becomes "a", " pen"
    tokens = [[(logprob, text) for logprob, _, text in choice] for choice in meta_info["input_token_logprobs"]]
    assert tokens == [[(-0.4, " pen")], [(-0.1, "!")]]


def test_ub10_a_prompt_that_ends_with_a_repeated_token_can_be_followed_by_a_choice(server: FakeServer) -> None:
    _, meta_info = scores(server, "ha!!", ["yes", "no"])
    assert meta_info["normalized_prompt_logprobs"] == pytest.approx([-0.3, -0.2])


@pytest.mark.parametrize(
    ("method", "key"),
    [
        (sgl.greedy_token_selection, "greedy_logprob_matrix"),
        (sgl.unconditional_likelihood_normalized, "normalized_unconditional_prompt_logprobs"),
    ],
)
def test_ub9_the_other_methods_work_on_a_real_servers_answers(server: FakeServer, method: Any, key: str) -> None:
    decision, meta_info = scores(server, "I need a", [" calculator", " pen now"], method)
    assert decision in (" calculator", " pen now")
    assert len(meta_info[key]) == 2


def test_ub9_unconditional_scores_cover_every_token_of_a_choice(server: FakeServer) -> None:
    _, meta_info = scores(server, "I need a", [" pen now"], sgl.unconditional_likelihood_normalized)
    assert [(logprob, text) for logprob, _, text in meta_info["unconditional_token_logprobs"][0]] == [
        (None, " pen"),
        (pytest.approx(-1.4), " now"),
    ]
    assert server.bodies[-1]["logprob_start_len"] == 0


def test_scoring_computes_no_more_of_the_prompt_than_its_last_token(server: FakeServer) -> None:
    scores(server, "I need a", [" pen", " calculator"])
    prefill, batch = server.bodies
    assert prefill == {"text": "I need a", "sampling_params": {"max_new_tokens": 0, "temperature": 0.0}}
    assert batch["text"] == ["I need a", "I need a pen", "I need a calculator"]
    assert batch["logprob_start_len"] == 2


# Failures


def test_nothing_listening_is_a_connection_error_that_names_the_url() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=f"nothing answers at {url}: is the server running"):
        RuntimeEndpoint(url)


@pytest.mark.parametrize("url", ["localhost:30000", "ftp://localhost", "http://", "30000"])
def test_what_is_no_url_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="base_url must be like"):
        RuntimeEndpoint(url)


def test_the_key_goes_along_and_a_missing_one_is_named_but_never_shown(server: FakeServer) -> None:
    server.api_key = "secret"
    with pytest.raises(BackendError, match="Unauthorized; give the server's key as api_key"):
        RuntimeEndpoint(server.url)
    endpoint = RuntimeEndpoint(server.url, api_key="secret")
    assert server.headers["authorization"] == "Bearer secret"
    assert "secret" not in repr(endpoint)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert qa.run(backend=RuntimeEndpoint(server.url))["answer"] == "Hello, world!"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (
            JSONResponse({"error": {"message": "top_p must be in (0, 1], got 2."}}, 400),
            r"top_p must be in .* \(HTTP 400",
        ),
        (JSONResponse({"error": "unknown field `x`"}, 400), r"unknown field `x` \(HTTP 400"),
        (JSONResponse({"object": "error", "message": "too long", "code": 400}, 400), r"too long \(HTTP 400"),
        (JSONResponse({"detail": "Not Found"}, 404), r"Not Found \(HTTP 404 from http://.*/generate\)"),
        (PlainTextResponse("Internal Server Error", 500), r"Internal Server Error \(HTTP 500"),
    ],
)
@pytest.mark.parametrize("n", [1, 2], ids=["stream", "whole"])
def test_a_refusal_is_told_in_the_servers_words(server: FakeServer, response: Response, message: str, n: int) -> None:
    server.respond = lambda body: response
    s = begin_state(RuntimeEndpoint(server.url))
    s += sgl.gen("x", n=n)
    with pytest.raises(BackendError, match=message) as caught:
        s.text()
    assert caught.value.status == response.status_code


def test_ub27_an_error_event_in_a_stream_is_raised_with_its_message(server: FakeServer) -> None:
    server.respond = lambda body: sse({"text": "part", "meta_info": META}, {"error": {"message": "out of memory"}})
    s = begin_state(RuntimeEndpoint(server.url))
    s += "> " + sgl.gen("x")
    with pytest.raises(BackendError, match="out of memory"):
        s["x"]
    assert repr(s).endswith("> part")


def test_ub28_a_request_that_the_server_aborts_is_an_error_and_no_short_answer(server: FakeServer) -> None:
    aborted = {"finish_reason": {"type": "abort", "message": "by an administrator", "status_code": 503}}
    server.respond = lambda body: sse({"text": "part", "meta_info": aborted})
    with pytest.raises(BackendError, match="the server aborted the request: by an administrator"):
        within(5, lambda: qa.run(backend=RuntimeEndpoint(server.url))["answer"])


@pytest.mark.parametrize("events", [(), ({"text": "part", "meta_info": META},)])
def test_a_stream_that_ends_too_early_is_an_error(server: FakeServer, events: tuple[Any, ...]) -> None:
    server.respond = lambda body: sse(*events, done=False)
    with pytest.raises(BackendUnreachable, match="closed the connection before the answer was complete"):
        within(5, lambda: qa.run(backend=RuntimeEndpoint(server.url))["answer"])


def test_a_server_that_dies_while_it_answers_is_an_error_and_no_hang() -> None:
    with serve() as server:
        server.respond = server.endless
        state = qa.run(backend=RuntimeEndpoint(server.url), stream=True)
        assert next(state.text_iter("answer")) == "Hel"
    with pytest.raises(BackendUnreachable, match=f"{server.url}"):
        within(10, lambda: state["answer"])


def test_what_is_not_json_is_an_error(server: FakeServer) -> None:
    server.respond = lambda body: sse(b"data: <html>\n\n")
    with pytest.raises(BackendError, match="the server did not answer with JSON"):
        qa.run(backend=RuntimeEndpoint(server.url))["answer"]


def test_cancel_closes_the_connection(server: FakeServer) -> None:
    server.respond = server.endless
    state = qa.run(backend=RuntimeEndpoint(server.url), stream=True)
    assert next(state.text_iter("answer")) == "Hel"
    state.cancel()
    assert server.left_early.wait(5)
    assert within(5, lambda: state["answer"]) == "Hel"
    with pytest.raises(ProgramStopped):
        state += "more"


def test_a_batch_of_requests_is_open_at_the_same_time(server: FakeServer) -> None:
    everyone = threading.Event()

    def respond(body: dict[str, Any]) -> Response:
        if len(server.bodies) == 50:
            everyone.set()
        return server.endless(body)

    server.respond = respond
    endpoint = RuntimeEndpoint(server.url)
    states = [qa.run(backend=endpoint) for _ in range(50)]
    assert everyone.wait(10)
    for state in states:
        state.cancel()
