"""The OpenAI backend on servers that others wrote, and on kernel_engine: real programs on tiny-chat, over real HTTP.

llama-cpp-python's server is tested where that package is installed, with `gguf`, which writes the model in its format. It is built
from its source, for minutes, and so is not among the packages for development: docs/backends.md tells when it was tested last.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import tokenizers

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import UnsupportedFeature
from sgl_jupyter.lang.program import begin_state

from .gguf_model import write_gguf
from .support import ServerProcess

pytest.importorskip("openai", reason="the package openai is not installed, so servers with its routes are not tested")

MODEL = Path(__file__).parents[2] / "kernel_engine" / "bundled" / "tiny-chat"
START_SECONDS = 120.0
ANSWER = "The capital of France is Paris."
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}


@dataclass
class Place:
    """A running server, its kind, and its name for the model."""

    url: str
    kind: str
    model: str

    def backend(self, is_chat_model: bool) -> sgl.OpenAI:
        return sgl.OpenAI(
            self.model, is_chat_model, base_url=self.url + "/v1", api_key="none", server=self.kind, max_retries=0
        )


@contextlib.contextmanager
def started(make_command: Callable[[int], list[str]], ready: str, log_path: Path) -> Iterator[str]:
    """The URL of a server's process, which is ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log_path.open("wb") as log:
        # one thread each is plenty for a small model, and fair to the other tests
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(make_command(port), stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        limit = time.monotonic() + START_SECONDS
        while not _answers(url + ready):
            assert process.poll() is None, log_path.read_text()
            assert time.monotonic() < limit, log_path.read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if importlib.util.find_spec("fastapi") is None:
        pytest.skip("transformers serve is not tested: pip install 'transformers[serving]'")
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(MODEL), "--device", "cpu"]
    log_path = tmp_path_factory.mktemp("transformers") / "log.txt"
    with started(lambda port: [*command, "--host", "127.0.0.1", "--port", str(port)], "/health", log_path) as url:
        yield Place(url, "transformers", str(MODEL))


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    missing = [name for name in ("llama_cpp", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"llama-cpp-python's server is not tested: {' and '.join(missing)} is not installed")
    folder = tmp_path_factory.mktemp("llama")
    write_gguf(MODEL, folder / "model.gguf")
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(folder / "model.gguf"), "--n_ctx", "2048"]
    command += ["--model_alias", "tiny-chat", "--logits_all", "true", "--interrupt_requests", "false"]
    log_path = folder / "log.txt"
    with started(lambda port: [*command, "--host", "127.0.0.1", "--port", str(port)], "/v1/models", log_path) as url:
        yield Place(url, "llama.cpp", "tiny-chat")


@pytest.fixture(params=["kernel_engine", "transformers", "llama.cpp"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "kernel_engine":
        server: ServerProcess = request.getfixturevalue("server")
        return Place(server.url, "sglang", "tiny-chat")
    return request.getfixturevalue("transformers_serve" if request.param == "transformers" else "llama_cpp")


@pytest.fixture(params=[True, False], ids=["chat", "text"])
def backend(place: Place, request: pytest.FixtureRequest) -> sgl.OpenAI:
    return place.backend(request.param)


def asked(backend: sgl.OpenAI, answer: Any) -> sgl.ProgramState:
    """A finished program that asks for the capital of France, with a chat template of its own where the server has none."""
    state = begin_state(backend, temperature=0.0, max_new_tokens=16)
    if backend.is_chat_model:
        state += sgl.user("What is the capital of France?") + sgl.assistant(answer)
    else:
        state += "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n" + answer
    state.sync()
    return state


def meta_info(state: sgl.ProgramState) -> dict[str, Any]:
    found = state.get_meta_info("x")
    assert found is not None
    return found


def test_a_program_streams_the_models_own_answer(backend: sgl.OpenAI) -> None:
    state = asked(backend, sgl.gen("x"))
    assert state["x"] == ANSWER
    assert meta_info(state)["finish_reason"]["type"] == "stop"
    pieces = [e.text for e in state.log.events if getattr(e, "origin", None) == "generated"]  # type: ignore[union-attr]
    assert len(pieces) > 3


def test_token_counts(place: Place, backend: sgl.OpenAI) -> None:
    state = asked(backend, sgl.gen("x", max_tokens=3))
    assert state["x"] == "The capital of"
    assert meta_info(state)["finish_reason"]["type"] == "length"
    if place.kind == "llama.cpp":
        assert "completion_tokens" not in meta_info(state)  # it counts none in a stream
    else:
        assert meta_info(state)["completion_tokens"] == 3
        assert meta_info(state)["prompt_tokens"] > 10
        assert backend.token_usage.completion_tokens == 3


def test_an_answer_ends_before_its_stop_string(backend: sgl.OpenAI) -> None:
    assert asked(backend, sgl.gen("x", stop="Par"))["x"] == "The capital of France is "


def test_samples(backend: sgl.OpenAI) -> None:
    assert asked(backend, sgl.gen("x", n=3))["x"] == [ANSWER] * 3


def test_many_programs_at_once(backend: sgl.OpenAI) -> None:
    @sgl.function
    def capital(s: Any, country: str) -> None:
        s += sgl.user(f"What is the capital of {country}?") + sgl.assistant(sgl.gen("x"))

    if not backend.is_chat_model:
        backend.chat_template = "qwen"
    states = capital.run_batch([{"country": c} for c in ("France", "Italy", "Japan")], backend=backend, temperature=0.0)
    assert [city in state["x"] for city, state in zip(("Paris", "Rome", "Tokyo"), states, strict=True)] == [True] * 3


def test_a_cancelled_program_leaves_the_server_working(backend: sgl.OpenAI) -> None:
    state = begin_state(backend, max_new_tokens=500)
    state += sgl.user("Tell me a story.") + sgl.assistant(sgl.gen("x", temperature=1.0))
    time.sleep(0.2)
    state.cancel()
    assert asked(backend, sgl.gen("x"))["x"] == ANSWER


def test_a_turn_in_one_call(place: Place) -> None:
    @sgl.function(num_api_spec_tokens=32)
    def capital(s: Any) -> None:
        s += sgl.user("What is the capital of France?")
        s += sgl.assistant("The capital of France is" + sgl.gen("x", stop="."))

    assert capital.run(backend=place.backend(True), temperature=0.0)["x"].strip() == "Paris"


def test_a_temperature_spreads_answers_and_a_seed_repeats_them(backend: sgl.OpenAI) -> None:
    def story(seed: int) -> str:
        return asked(backend, sgl.gen("x", max_tokens=8, temperature=5.0, seed=seed))["x"]

    texts = [story(seed) for seed in (1, 2, 3, 1)]
    assert texts[0] == texts[3]
    assert len(set(texts)) > 1


# What one server can do and another cannot


def test_logit_bias(place: Place, backend: sgl.OpenAI) -> None:
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    unwanted = sgl.gen("x", logit_bias={tokenizer.encode("The").ids[0]: -100})
    if place.kind == "transformers":
        with pytest.raises(UnsupportedFeature, match="logit_bias"):
            asked(backend, unwanted)
    else:
        assert not asked(backend, unwanted)["x"].startswith("The")


def test_constraints(place: Place, backend: sgl.OpenAI) -> None:
    able = {
        "sglang": {"regex", "ebnf", "json_schema", "dtype", "choices"},
        "llama.cpp": {"ebnf", "choices", *(("json_schema", "dtype") if backend.is_chat_model else ())},
        "transformers": set(),
    }[place.kind]
    asks: dict[str, tuple[Any, Any]] = {
        "regex": (sgl.gen("x", regex="(Lyon|Nice)"), {"Lyon", "Nice"}),
        "ebnf": (sgl.gen("x", ebnf='root ::= "Lyon" | "Nice"'), {"Lyon", "Nice"}),
        "dtype": (sgl.gen("x", dtype=bool), {"True", "False"}),
        "choices": (sgl.select("x", ["Lyon (old)", "Nice?"]), {"Lyon (old)", "Nice?"}),
    }
    for name, (expr, answers) in asks.items():
        if name in able:
            assert asked(backend, expr)["x"] in answers, name
        else:
            with pytest.raises(UnsupportedFeature, match=name):
                asked(backend, expr)
    with contextlib.nullcontext() if "json_schema" in able else pytest.raises(UnsupportedFeature, match="json_schema"):
        text = asked(backend, sgl.gen("x", json_schema=SCHEMA, max_tokens=200))["x"]
        assert "".join(text.split()) in ('{"a":true}', '{"a":false}')


def test_log_probabilities(place: Place, backend: sgl.OpenAI) -> None:
    wanted = sgl.gen("x", max_tokens=4, return_logprob=True, top_logprobs_num=2)
    if place.kind == "transformers":
        with pytest.raises(UnsupportedFeature, match="return_logprob"):
            asked(backend, wanted)
        return
    found = meta_info(asked(backend, wanted))
    assert [text for *_, text in found["output_token_logprobs"]] == ["The", " capital", " of", " France"]
    assert all(-0.1 < logprob <= 0 for logprob, *_ in found["output_token_logprobs"])
    assert all(len(top) >= 2 for top in found["output_top_logprobs"])


def test_sampling_parameters_beyond_openais(place: Place, backend: sgl.OpenAI) -> None:
    wanted = sgl.gen("x", temperature=1.0, top_k=1)
    if place.kind == "transformers":
        with pytest.raises(UnsupportedFeature, match="top_k=1"):
            asked(backend, wanted)
    else:
        assert asked(backend, wanted)["x"] == ANSWER


def test_a_begun_message(place: Place) -> None:
    begun = "The capital of Italy" + sgl.gen("x")
    assert asked(place.backend(False), begun)["x"] == " is Rome."
    if place.kind == "sglang":
        assert asked(place.backend(True), begun)["x"] == " is Rome."
    else:
        with pytest.raises(UnsupportedFeature, match="gen must be right after assistant_begin"):
            asked(place.backend(True), begun)


def test_choices_have_the_scores_that_the_native_route_gives(server: ServerProcess) -> None:
    choices = [" Paris", " Rome", " the capital"]

    def scores(backend: Any) -> list[float]:
        state = begin_state(backend)
        state += "The capital of France is" + sgl.select("x", choices)
        assert state["x"] == " Paris"
        return meta_info(state)["normalized_prompt_logprobs"]

    by_echo = scores(Place(server.url, "sglang", "tiny-chat").backend(False))
    assert by_echo == pytest.approx(scores(sgl.RuntimeEndpoint(server.url)), abs=1e-4)


def test_litellm_speaks_to_kernel_engine(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask the internet for prices
    pytest.importorskip("litellm", reason="the package litellm is not installed, so it is not tested")
    backend = sgl.LiteLLM("openai/tiny-chat", base_url=server.url + "/v1", api_key="none", max_retries=0)
    state = begin_state(backend, temperature=0.0, max_new_tokens=16)
    state += sgl.user("What is the capital of France?") + sgl.assistant(sgl.gen("x"))
    assert state["x"] == ANSWER
    assert meta_info(state)["completion_tokens"] == 8


# Refusals in the servers' own words


def test_another_model_is_refused(transformers_serve: Place) -> None:
    elsewhere = Place(transformers_serve.url, "transformers", "another-model")
    with pytest.raises(sgl.BackendError, match="requested 'another-model'") as caught:
        asked(elsewhere.backend(True), sgl.gen("x"))
    assert caught.value.status == 400


def test_a_value_that_makes_no_sense_is_refused(server: ServerProcess) -> None:
    with pytest.raises(sgl.BackendError, match="top_p") as caught:
        asked(Place(server.url, "sglang", "tiny-chat").backend(True), sgl.gen("x", top_p=3.0))
    assert caught.value.status == 400
