"""`connect`: what answers at a URL, and what can be done with an engine that is not ours."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import BackendError, BackendUnreachable, ModelTemplate, UnsupportedFeature
from sgl_jupyter.backends.openai import OpenAI
from sgl_jupyter.lifecycle import connect, load_of

from .fake_server import FakeServer, running, serve


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serve() as server:
        yield server


@contextmanager
def openai_server(*models: dict[str, Any]) -> Iterator[str]:
    """A server that has OpenAI's routes only, and continues every text with its own length."""

    async def list_models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": list(models)})

    async def completions(request: Request) -> Response:
        body = await request.json()
        choice = {"index": 0, "text": str(len(body["prompt"])), "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        whole = {"id": "c", "object": "text_completion", "created": 0, "model": body["model"], "choices": [choice]}
        return PlainTextResponse(
            "".join(
                f"data: {JSONResponse(event).body.decode()}\n\n"
                for event in (whole, whole | {"choices": [], "usage": usage})
            )
            + "data: [DONE]\n\n",
            media_type="text/event-stream",
        )

    routes = [Route("/v1/models", list_models), Route("/v1/completions", completions, methods=["POST"])]
    with running(routes) as url:
        yield url


@sgl.function
def continue_text(s, text):
    s += text + sgl.gen("rest", max_tokens=5)


def test_an_sglang_server_is_used_by_its_own_protocol(server: FakeServer) -> None:
    engine = connect(server.url + "/", name="far")
    assert (engine.name, engine.model, engine.url) == ("far", "tiny-chat", server.url)
    assert repr(engine) == f"<RemoteEngine 'far': tiny-chat at {server.url}>"
    assert isinstance(engine.endpoint, sgl.RuntimeEndpoint)
    with sgl.default_backend(engine):
        assert continue_text("Say it: ")["rest"] == "Hello, world!"
        assert sgl.get_server_info() == {"status": "ready"}
        sgl.flush_cache()
        assert server.paths == ["POST /flush_cache"]
    assert connect(server.url).name == "tiny-chat"


def test_a_known_engine_with_openais_routes_continues_text() -> None:
    with openai_server({"id": "org/one", "owned_by": "vllm"}, {"id": "org/two", "owned_by": "vllm"}) as url:
        engine = connect(f"{url}/v1/")
        assert (engine.model, engine.name, engine.url) == ("org/one", "one", url)
        assert isinstance(engine.endpoint, OpenAI)
        assert engine.endpoint.is_chat_model is False
        assert continue_text("four", backend=engine)["rest"] == "4"
        assert connect(url, model="org/two").model == "org/two"
        with pytest.raises(BackendError, match="offers no model 'x', but org/one, org/two"):
            connect(url, model="x")
        with pytest.raises(UnsupportedFeature, match="OpenAI does not support ending all requests at once"):
            engine.stop()
        assert engine.wait(5).state == "ready"
        assert load_of(engine).requests is None


def test_any_other_server_with_openais_routes_answers_messages() -> None:
    with openai_server({"id": "gpt", "owned_by": "someone"}) as url:
        assert connect(url).endpoint.is_chat_model is True


def test_the_wrong_key_is_told_with_what_to_do(server: FakeServer) -> None:
    server.api_key = "secret"
    for key in (None, "wrong"):
        with pytest.raises(BackendError, match=r"Unauthorized; give the server's key as api_key=") as raised:
            connect(server.url, key)
        assert raised.value.status == 401
        assert "wrong" not in str(raised.value)
    engine = connect(server.url, "secret")
    assert "secret" not in repr(engine)


def test_where_nothing_answers_it_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(BackendUnreachable, match=f"nothing answers at {url}"):
        connect(url)
    with pytest.raises(ValueError, match="base_url must be like"):
        connect("gpu-box:30000")


@pytest.mark.parametrize("body", ["a web page", "{}", '{"data": [1]}', '{"data": []}'])
def test_what_is_no_engine_is_not_taken_for_one(body: str) -> None:
    async def answer(request: Request) -> Response:
        return PlainTextResponse(body)

    for routes in ([], [Route("/v1/models", answer)]):
        with running(routes) as url, pytest.raises(BackendError, match=f"{url} (is neither|offers no model)"):
            connect(url)


def test_an_engine_elsewhere_cannot_be_ended_from_here(server: FakeServer) -> None:
    engine = connect(server.url)
    for action in (engine.terminate, engine.kill, engine.logs):
        with pytest.raises(
            RuntimeError, match=f"was not launched from this machine: (end it|read its log) where {server.url}"
        ):
            action()


def test_an_engine_that_went_away_is_unreachable() -> None:
    with serve() as server:
        engine = connect(server.url)
    assert engine.state == "unreachable"
    assert load_of(engine).requests is None
    with pytest.raises(TimeoutError, match="was not ready"):
        engine.wait(0.2)


def test_a_chat_template_that_the_server_does_not_tell_is_read_from_the_downloaded_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    snapshot = tmp_path / "models--org--one" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    config = {"chat_template": "{{ messages }}", "eos_token": {"content": "<end>"}}
    (snapshot / "tokenizer_config.json").write_text(json.dumps(config))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with openai_server({"id": "org/one", "owned_by": "vllm"}) as url:
        assert connect(url).endpoint.model_template == ModelTemplate("{{ messages }}", "", "<end>")
    with openai_server({"id": "org/two", "owned_by": "vllm"}) as url:
        assert connect(url).endpoint.model_template is None
