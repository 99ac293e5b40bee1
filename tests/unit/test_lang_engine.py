"""The language against the real engine and its bundled model: the tutorial's programs, over real HTTP."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import BackendError, BackendUnreachable
from sgl_jupyter.lang.program import begin_state

from .fake_backend import within

pytest.importorskip("torch", reason="the engine's dependencies are not installed")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sgl.RuntimeEndpoint]:
    ready = tmp_path_factory.mktemp("engine") / "ready.json"
    with launched(ready) as url:
        yield sgl.RuntimeEndpoint(url)


class launched:
    """A running engine's URL, until the end of the block."""

    def __init__(self, ready: Path) -> None:
        self._ready = ready

    def __enter__(self) -> str:
        arguments = ["--model-path", "tiny-chat", "--port", "0", "--ready-file", str(self._ready)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kernel_engine.launch_server", *arguments, "--log-level", "error"]
        )
        pause = threading.Event()
        for _ in range(600):
            if self._ready.exists():
                return json.loads(self._ready.read_text())["url"]
            assert self.process.poll() is None, "the engine died while loading"
            pause.wait(0.1)
        raise TimeoutError("the engine was not ready within 60 s")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)


@sgl.function
def text_qa(s: Any, question: str) -> None:
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("answer", stop="\n"))


def test_a_question_is_answered_and_usage_is_told(endpoint: sgl.RuntimeEndpoint) -> None:
    state = text_qa.run("What is the capital of France?", temperature=0, backend=endpoint)
    assert "Paris" in state["answer"]
    meta_info = state.get_meta_info("answer")
    assert meta_info is not None
    assert meta_info["finish_reason"]["type"] == "stop"
    assert meta_info["prompt_tokens"] > meta_info["cached_tokens"] >= 0


def test_a_stream_is_the_text_of_the_run(endpoint: sgl.RuntimeEndpoint) -> None:
    streamed = text_qa.run("What is the capital of France?", temperature=0, stream=True, backend=endpoint)
    pieces = list(streamed.text_iter())
    assert len(pieces) > 2
    assert "".join(pieces) == text_qa.run("What is the capital of France?", temperature=0, backend=endpoint).text()


def test_a_batch_answers_in_order(endpoint: sgl.RuntimeEndpoint) -> None:
    capitals = {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome"}
    items = [{"question": f"What is the capital of {country}?"} for country in capitals]
    states = list(text_qa.run_batch(items, temperature=0, backend=endpoint))
    assert [capital in s["answer"] for capital, s in zip(capitals.values(), states, strict=True)] == [True] * 3


def test_control_flow_follows_a_choice(endpoint: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def tool_use(s: Any, question: str) -> None:
        s += sgl.assistant(
            "To answer this question: " + question + ". I need to use a "
            + sgl.gen("tool", choices=["calculator", "search engine"]) + ". "
        )  # fmt: skip
        if s["tool"] == "calculator":
            s += sgl.assistant("The math expression is: " + sgl.gen("expression", max_tokens=16))

    state = tool_use("What is 2 * 2?", temperature=0, backend=endpoint)
    assert state["tool"] == "calculator"
    assert state["expression"]


def test_forks_share_the_prefix_of_their_parent(endpoint: sgl.RuntimeEndpoint) -> None:
    s = begin_state(endpoint, temperature=0, max_new_tokens=8)
    s += "Here are two tips for staying healthy, which nobody has asked for before:"
    forks = s.fork(2)
    forks += sgl.gen("tip")
    for fork in forks:
        meta_info = fork.get_meta_info("tip")
        assert meta_info["prompt_tokens"] - meta_info["cached_tokens"] == 1  # type: ignore[index]


def test_a_regex_is_obeyed(endpoint: sgl.RuntimeEndpoint) -> None:
    address = r"((25[0-5]|2[0-4]\d|[01]?\d\d?).){3}(25[0-5]|2[0-4]\d|[01]?\d\d?)"
    s = begin_state(endpoint, temperature=0)
    s += sgl.user("What is the IP address of the Google DNS servers?") + sgl.assistant(sgl.gen("answer", regex=address))
    assert re.fullmatch(address, s["answer"])


@pytest.mark.parametrize("prompt", ["The capital of France is", "The capital of France is ", "ha!!"])
def test_scores_of_choices_are_the_log_probabilities_of_their_tokens(
    endpoint: sgl.RuntimeEndpoint, prompt: str
) -> None:
    choices = ["Paris", " a small town", "!"]
    s = begin_state(endpoint)
    s += prompt + sgl.select("x", choices, choices_method=sgl.unconditional_likelihood_normalized)
    measured = s.get_meta_info("x")["input_token_logprobs"]  # type: ignore[index]
    for choice, tokens in zip(choices, measured, strict=True):
        whole = begin_state(endpoint)
        whole += prompt + choice
        whole += sgl.gen("y", max_tokens=1, return_logprob=True, logprob_start_len=0, return_text_in_logprobs=True)
        every = whole.get_meta_info("y")["input_token_logprobs"]  # type: ignore[index]
        expected = every[-len(tokens) :]
        assert [token[1] for token in tokens] == [token[1] for token in expected]
        assert [token[0] for token in tokens] == pytest.approx([token[0] for token in expected], abs=0.05)
        assert "".join(token[2] for token in tokens).strip() == choice.strip()


def test_n_samples_share_one_request(endpoint: sgl.RuntimeEndpoint) -> None:
    s = begin_state(endpoint, temperature=1.0, max_new_tokens=8)
    s += "Once upon a time" + sgl.gen("x", n=3)
    assert len(s["x"]) == 3
    assert s.text() == "Once upon a time" + s["x"][0]


def test_bad_parameters_are_told_in_the_engines_words(endpoint: sgl.RuntimeEndpoint) -> None:
    s = begin_state(endpoint)
    s += "x" + sgl.gen("y", top_p=3.0)
    with pytest.raises(BackendError, match=r"top_p must be in \(0, 1\]"):
        s["y"]


def test_cancelling_ends_the_request_at_the_engine(endpoint: sgl.RuntimeEndpoint) -> None:
    s = begin_state(endpoint, ignore_eos=True, max_new_tokens=3500)
    s += "x" + sgl.gen("y")
    within(10, s.log.wait, 3)
    s.cancel()
    assert s["y"]
    pause = threading.Event()
    for _ in range(200):
        if endpoint.get_server_info()["internal_states"][0]["running_requests"] == 0:
            break
        pause.wait(0.05)
    else:
        pytest.fail("the engine still runs what was cancelled")


def test_an_engine_that_dies_is_an_error_and_no_hang(tmp_path: Path) -> None:
    with (engine := launched(tmp_path / "ready.json")) as url:
        s = begin_state(sgl.RuntimeEndpoint(url), ignore_eos=True, max_new_tokens=3500)
        s += "x" + sgl.gen("y")
        within(10, s.log.wait, 3)
        engine.process.kill()
        with pytest.raises(BackendUnreachable):
            within(10, lambda: s["y"])
