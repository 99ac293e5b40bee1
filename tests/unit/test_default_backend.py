"""Where a program runs that does not say: several backends at once, and a default for each context."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import BaseBackend, Chunk, Prompt, SamplingParams
from sgl_jupyter.lang.program import begin_state

from .fake_backend import FakeBackend


@pytest.fixture(autouse=True)
def _no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgl.global_config, "default_backend", None)


@sgl.function
def program(s: Any) -> None:
    s += sgl.gen("x")


@sgl.function
def outer(s: Any) -> None:
    s += program()["x"] + " and more"


def test_programs_run_on_several_backends_at_once() -> None:
    backends = [FakeBackend(f"answer {i}") for i in range(3)]
    states = [program.run(backend=backend) for backend in backends]
    assert [state["x"] for state in states] == ["answer 0", "answer 1", "answer 2"]


def test_a_block_has_a_default_of_its_own() -> None:
    sgl.set_default_backend(FakeBackend("global"))
    with sgl.default_backend(FakeBackend("outer")):
        with sgl.default_backend(FakeBackend("inner")):
            assert program()["x"] == "inner"
            assert program(backend=FakeBackend("said"))["x"] == "said"
        assert program()["x"] == "outer"
    assert program()["x"] == "global"


def test_a_block_that_fails_has_no_effect_on_what_follows() -> None:
    with pytest.raises(KeyError), sgl.default_backend(FakeBackend()):
        raise KeyError
    with pytest.raises(ValueError, match="no backend to run on"):
        program()


def test_programs_within_programs_and_batches_run_there_too() -> None:
    with sgl.default_backend(FakeBackend("inner")):
        assert outer.run(stream=True).text() == "inner and more"
        assert [state.text() for state in outer.run_batch([{}, {}])] == ["inner and more"] * 2


def test_other_threads_are_not_concerned() -> None:
    texts = []
    with sgl.default_backend(FakeBackend("here")):
        thread = threading.Thread(target=lambda: texts.append(program(backend=FakeBackend("there"))["x"]))
        thread.start()
        thread.join()
        sgl.set_default_backend(FakeBackend("global"))
        thread = threading.Thread(target=lambda: texts.append(program()["x"]))
        thread.start()
        thread.join()
        texts.append(program()["x"])
    assert texts == ["there", "global", "here"]


def test_tasks_have_defaults_of_their_own() -> None:
    async def one(i: int) -> str:
        with sgl.default_backend(FakeBackend(f"answer {i}")):
            await asyncio.sleep(0.01)
            return (await program.arun())["x"]

    async def all_of_them() -> list[str]:
        return list(await asyncio.gather(*map(one, range(3))))

    assert asyncio.run(all_of_them()) == ["answer 0", "answer 1", "answer 2"]


def test_a_backend_that_only_generates_says_what_else_it_cannot_do() -> None:
    class Plain(BaseBackend):
        async def generate(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
            yield Chunk("x", {})

    backend = Plain()
    assert program.run(backend=backend)["x"] == "x"
    for expr, feature in [
        (sgl.gen("x", n=2), r"several samples \(n > 1\)"),
        (sgl.select("x", ["a", "b"]), "the scoring of choices"),
        (sgl.image("https://example.org/a.png"), "images in prompts"),
    ]:
        s = begin_state(backend)
        s += "text" + expr
        with pytest.raises(sgl.UnsupportedFeature, match=f"Plain does not support {feature}"):
            s.sync()
