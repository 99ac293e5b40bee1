"""`Runtime` and `Engine` on the bundled model, and programs that are recorded on it and replayed when it is gone."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import BackendError, BackendUnreachable

INSTALLED = Path(__file__).parents[1] / "kernel" / "lifecycle" / "installed"
GREEDY = {"temperature": 0, "max_new_tokens": 8}
ENDLESS = {"temperature": 0, "max_new_tokens": 3_500, "ignore_eos": True}
JSON_REGEX = r'\{\n    "name": "[\w ]{1,16}",\n    "population": \d{1,9}\n\}'


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A registry of engines that is this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runtime")
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def engine(registry: Path) -> Iterator[sgl.Engine]:
    with sgl.Engine(model_path="tiny-chat", max_total_tokens=16_000) as engine:
        yield engine


def wait_until_idle(engine: sgl.Engine) -> None:
    deadline = time.monotonic() + 20
    while (state := engine.get_server_info()["internal_states"][0])["running_requests"]:
        assert time.monotonic() < deadline, state
        time.sleep(0.05)


def test_texts_are_continued_one_by_one_or_together(engine: sgl.Engine) -> None:
    alone = engine.generate("The capital of France is", GREEDY)
    both = engine.generate(["The capital of France is", "Hello"], [GREEDY, GREEDY | {"max_new_tokens": 2}])
    assert both[0]["text"] == alone["text"]
    assert [answer["meta_info"]["completion_tokens"] <= most for answer, most in zip(both, (8, 2), strict=True)]
    scored = engine.generate("Hello", GREEDY, return_logprob=True, top_logprobs_num=2)
    assert len(scored["meta_info"]["output_token_logprobs"]) == scored["meta_info"]["completion_tokens"]
    assert engine.generate(input_ids=[1, 2, 3], sampling_params=GREEDY)["meta_info"]["prompt_tokens"] == 3


def test_a_stream_tells_the_text_so_far_and_can_be_left(engine: sgl.Engine) -> None:
    texts = [event["text"] for event in engine.generate("The capital of France is", GREEDY, stream=True)]
    assert texts[-1] == engine.generate("The capital of France is", GREEDY)["text"]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    events = engine.generate("Once upon a time", ENDLESS, stream=True)
    next(events)
    events.close()
    wait_until_idle(engine)


def test_coroutines_await_stream_and_cancel(engine: sgl.Engine) -> None:
    async def use() -> str:
        answer = await engine.async_generate("The capital of France is", GREEDY)
        events = await engine.async_generate("Once upon a time", ENDLESS, stream=True)
        async for event in events:
            assert event["text"] is not None
            break
        await events.aclose()
        endless = asyncio.create_task(engine.async_generate("Once upon a time", ENDLESS))
        await asyncio.sleep(0.3)
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless
        assert engine.generate("x", GREEDY)  # the blocking call inside a running loop
        return answer["text"]

    assert asyncio.run(use()) == engine.generate("The capital of France is", GREEDY)["text"]
    wait_until_idle(engine)


def test_a_refusal_is_told_in_the_engines_words(engine: sgl.Engine) -> None:
    for stream in (False, True):
        with pytest.raises(BackendError, match="temperature"):
            list(engine.generate("x", {"temperature": -1}, stream=stream))
    with pytest.raises(TypeError, match="no option temperature: how to sample goes into sampling_params"):
        engine.generate("x", temperature=0)


def test_an_engine_is_a_backend_with_figures(engine: sgl.Engine) -> None:
    handle = sgl.attach("tiny-chat")
    load = sgl.lifecycle.load_of(handle)
    assert load.requests == 0
    assert load.memory
    assert load.memory > 1 << 20
    engine.flush_cache()
    assert sgl.get_server_info(engine) == engine.get_server_info()
    state = capital.run("Japan", backend=engine)
    assert "Tokyo" in state["answer"]


def test_stop_ends_all_requests_and_the_engine_lives_on(engine: sgl.Engine) -> None:
    @sgl.function
    def endless(s: Any) -> None:
        s += "Once upon a time" + sgl.gen("tale", max_tokens=3_500, ignore_eos=True, temperature=0)

    state = endless.run(backend=engine, stream=True)
    next(state.text_iter("tale"))
    sgl.attach("tiny-chat").stop()
    with pytest.raises(BackendError, match="aborted"):
        state["tale"]
    wait_until_idle(engine)
    assert engine.generate("Hello", GREEDY)["text"]


def test_a_runtime_answers_as_sglangs_does(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the stand-in for SGLang's server, which runs the real engine with SGLang's command line."""
    monkeypatch.syspath_prepend(str(INSTALLED))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(INSTALLED), os.environ.get("PYTHONPATH", "")]))
    flags: dict[str, Any] = {"engine": "sglang", "device": "cpu", "max_total_tokens": 4096}
    with sgl.Runtime(model_path="tiny-chat", name="server", **flags) as runtime:
        assert runtime.server_args.max_total_tokens == 4096
        assert runtime.generate_url == f"{runtime.url}/generate"
        answer = json.loads(runtime.generate("The capital of France is", GREEDY, return_logprob=True))
        assert answer["meta_info"]["output_token_logprobs"]
        runtime.cache_prefix("The capital of Japan is the city")
        assert (
            json.loads(runtime.generate("The capital of Japan is the city", GREEDY))["meta_info"]["cached_tokens"] > 2
        )

        async def use() -> tuple[str, dict[str, Any]]:
            pieces = [piece async for piece in runtime.async_generate("The capital of France is", GREEDY)]
            return "".join(pieces), await runtime.get_server_info()

        text, info = asyncio.run(use())
        assert (text, info["model_path"]) == (answer["text"], "tiny-chat")
        sgl.set_default_backend(runtime)
        assert "Tokyo" in capital("Japan")["answer"]
        sgl.set_default_backend(None)
        assert [engine.name for engine in sgl.engines()].count("server") == 1
    runtime.shutdown()
    with pytest.raises(BackendUnreachable):
        runtime.generate("x")


def test_what_cannot_be_started_leaves_nothing(registry: Path) -> None:
    before = len(sgl.engines())
    with pytest.raises(sgl.EngineDiedError, match="is not a folder"):
        sgl.Runtime("./no/such/model")
    with pytest.raises(ValueError, match="Engine needs SGLang's native routes, which vLLM has not"):
        sgl.Engine("tiny-chat", engine="vllm")
    assert len(sgl.engines()) == before


@sgl.function
def capital(s: Any, country: str) -> None:
    s += sgl.user(f"What is the capital of {country}?")
    s += sgl.assistant(sgl.gen("answer", temperature=0, stop="\n"))


@sgl.function
def everything(s: Any) -> None:
    """Roles, a choice, a constraint, forks, samples, log-probabilities."""
    s += sgl.system("You are a helpful assistant.")
    s += sgl.user("To answer 2 + 3, which tool is needed?")
    s += sgl.assistant("I need a " + sgl.select("tool", ["calculator", "search engine"]) + ".")
    s += sgl.user("Tell me about France as JSON.")
    s += sgl.assistant(sgl.gen("json", regex=JSON_REGEX, max_tokens=60, temperature=0))
    forks = s.fork(3)
    for number, fork in enumerate(forks):
        fork += sgl.user(f"Tip {number}")
        fork += sgl.assistant(sgl.gen("tip", max_tokens=12, temperature=0.9, seed=number))
    s += sgl.user("\n".join(fork["tip"] for fork in forks))
    s += sgl.assistant(sgl.gen("samples", n=3, max_tokens=5, seed=7))
    s += sgl.user("One more")
    s += sgl.assistant(sgl.gen("last", max_tokens=6, temperature=0, return_logprob=True))


def outcome(state: sgl.ProgramState) -> tuple[Any, ...]:
    state.sync()
    names = ("tool", "json", "samples", "last")
    return (
        state.text(),
        [state[name] for name in names],
        [state.get_meta_info(name) for name in names],
        [event for event in state.log.events if not isinstance(event, sgl.lang.events.Forked)],
        [
            [child.events for child in event.children]
            for event in state.log.events
            if isinstance(event, sgl.lang.events.Forked)
        ],
    )


def test_recorded_programs_are_the_same_without_the_engine(engine: sgl.Engine, tmp_path: Path) -> None:
    countries = [{"country": country} for country in ("Peru", "Chad", "Peru")]
    path = tmp_path / "runs.jsonl"
    with sgl.record(path, engine):
        recorded = outcome(everything.run())
        streamed = "".join(capital.run("Japan", stream=True).text_iter("answer"))
        batch = [state["answer"] for state in capital.run_batch(countries)]
        steps = sgl.get_server_info()["internal_states"][0]["steps"]
    assert str(sgl.attach("tiny-chat").api_key) not in path.read_text()
    replay = sgl.Replay(path)
    assert outcome(everything.run(backend=replay)) == recorded
    assert "".join(capital.run("Japan", stream=True, backend=replay).text_iter("answer")) == streamed
    assert [state["answer"] for state in capital.run_batch(countries, backend=replay)] == batch
    assert sgl.get_server_info(replay)["model_path"] == "tiny-chat"
    assert engine.get_server_info()["internal_states"][0]["steps"] == steps
    with pytest.raises(BackendError, match=r"capital of Spain.*here.*there"):
        capital("Spain", backend=replay)["answer"]
