"""Streams: text as it arrives, for any number of readers, from threads and from coroutines."""

from __future__ import annotations

import _thread
import asyncio
import threading
import time
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import BackendError
from sgl_jupyter.lang import events

from .fake_backend import FakeBackend, within


@sgl.function
def answer(s: Any, question: str = "Q") -> str:
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("answer"))
    return "returned"


def test_stream_yields_the_whole_text_as_it_arrives() -> None:
    gate = threading.Event()
    state = answer.run(stream=True, backend=FakeBackend(["Par", gate, "is"], template="default"))
    pieces, seen = state.text_iter(), ""
    while "Par" not in seen:
        seen += next(pieces)
    assert "is" not in seen
    gate.set()
    assert seen + "".join(pieces) == "USER:Q\nASSISTANT:Paris\n"


def test_stream_of_a_variable_is_its_text_alone() -> None:
    state = answer.run(stream=True, backend=FakeBackend(["Par", "is"]))
    assert "".join(state.text_iter("answer")) == "Paris"
    assert "".join(state.text_iter("answer")) == "Paris", "a second reader starts from the beginning"


def test_without_stream_it_is_one_piece() -> None:
    state = answer.run(backend=FakeBackend(["Par", "is"], template="default"))
    assert list(state.text_iter()) == ["USER:Q\nASSISTANT:Paris\n"]
    assert list(state.text_iter("answer")) == ["Paris"]


def test_readers_do_not_take_from_each_other() -> None:
    gate = threading.Event()
    state = answer.run(stream=True, backend=FakeBackend([gate, *"abcdefgh"]))
    results: list[str] = []
    readers = [threading.Thread(target=lambda: results.append("".join(state.text_iter("answer")))) for _ in range(4)]
    for reader in readers:
        reader.start()
    gate.set()
    for reader in readers:
        reader.join(5)
    assert results == ["abcdefgh"] * 4


def test_run_with_stream_returns_while_the_body_is_blocked() -> None:
    gate = threading.Event()

    @sgl.function
    def waits(s: Any) -> str:
        gate.wait()
        s += "late"
        s["set"] = 1
        return "returned"

    state = within(5, lambda: waits.run(stream=True, backend=FakeBackend()))
    gate.set()
    assert within(5, lambda: state["set"]) == 1, "a read waits for a variable the body has yet to set"
    assert (state.text(), state.ret_value) == ("late", "returned")


def test_reads_inside_a_streaming_body_do_not_wait_for_its_end() -> None:
    @sgl.function
    def reads(s: Any) -> Any:
        s += sgl.gen("x")
        with pytest.raises(KeyError):
            s["unknown"]
        return s.text(), list(s.text_iter())

    state = reads.run(stream=True, backend=FakeBackend("text"))
    within(5, state.sync)
    assert state.ret_value == ("text", ["text"])


def test_ub2_an_error_of_the_body_is_raised_at_the_end_of_the_stream() -> None:
    @sgl.function
    def fails(s: Any) -> None:
        s += "before"
        s.sync()
        raise LookupError("in the body")

    state = fails.run(stream=True, backend=FakeBackend())
    pieces = state.text_iter()
    assert within(5, next, pieces) == "before"
    with pytest.raises(LookupError, match="in the body"):
        within(5, next, pieces)
    assert isinstance(state.error(), LookupError)


def test_an_error_of_the_backend_is_raised_after_the_text_that_came() -> None:
    state = answer.run(stream=True, backend=FakeBackend(["part", BackendError("gone")]))
    pieces = state.text_iter("answer")
    assert next(pieces) == "part"
    with pytest.raises(BackendError, match="gone"):
        next(pieces)


def test_ub15_waiting_for_a_stream_uses_no_processor_time() -> None:
    gate = threading.Event()

    @sgl.function
    def idle(s: Any) -> None:
        gate.wait()
        s += sgl.gen("late")

    state = idle.run(stream=True, backend=FakeBackend("text"))
    threading.Timer(0.5, gate.set).start()
    began = time.thread_time()
    assert list(state.text_iter("late")) == ["text"]
    assert time.thread_time() - began < 0.1, "of 0.5 s spent waiting"


def test_ub16_the_stream_of_a_scope_grows_and_ends_with_it() -> None:
    gate, never = threading.Event(), threading.Event()

    @sgl.function
    def scoped(s: Any) -> None:
        s += "before "
        with s.var_scope("scope"):
            s += "It is " + sgl.gen("x") + "."
        s += sgl.gen("y")

    state = scoped.run(stream=True, backend=FakeBackend(["Par", gate, "is"], [never]))
    pieces, seen = state.text_iter("scope"), ""
    while "Par" not in seen:
        seen += within(5, next, pieces)
    gate.set()
    assert seen + within(5, "".join, pieces) == "It is Paris."
    state.cancel()


def test_a_variable_that_never_comes_is_a_key_error() -> None:
    state = answer.run(stream=True, backend=FakeBackend())
    with pytest.raises(KeyError, match="unknown"):
        within(5, list, state.text_iter("unknown"))


def test_a_variable_that_was_set_is_streamed_too() -> None:
    @sgl.function
    def sets(s: Any) -> None:
        s["x"] = "value"

    assert list(sets.run(stream=True, backend=FakeBackend()).text_iter("x")) == ["value"]


def test_an_interrupt_while_streaming_stops_the_run() -> None:
    backend = FakeBackend(["part", threading.Event()])
    state = answer.run(stream=True, backend=backend)
    threading.Timer(0.1, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        list(state.text_iter())
    assert backend.left_early.wait(5)
    assert within(5, lambda: state["answer"]) == "part"


def test_leaving_a_stream_lets_the_run_go_on() -> None:
    gate = threading.Event()
    state = answer.run(stream=True, backend=FakeBackend(["a", gate, "b"]))
    for _ in state.text_iter("answer"):
        break
    gate.set()
    assert state["answer"] == "ab"


def test_ub15_an_async_stream_leaves_the_loop_free() -> None:
    gate = threading.Event()

    async def main() -> tuple[str, list[Any], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                if ticks == 20:
                    gate.set()
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        state = answer.run(stream=True, backend=FakeBackend([gate, "Par", "is"], template="default"))
        text = "".join([piece async for piece in state.text_async_iter()])
        pairs = [pair async for pair in state.text_async_iter("answer", return_meta_data=True)]
        ticking.cancel()
        return text, pairs, ticks

    text, pairs, ticks = within(10, asyncio.run, main())
    assert text == "USER:Q\nASSISTANT:Paris\n"
    assert "".join(piece for piece, _ in pairs) == "Paris"
    assert pairs[-1][1]["finish_reason"] == {"type": "stop"}
    assert ticks >= 20, "the loop ran while the stream waited"


def test_arun_waits_without_blocking_and_returns_the_finished_state() -> None:
    async def main() -> list[str]:
        states = await asyncio.gather(*(answer.arun(backend=FakeBackend(f"answer {i}")) for i in range(20)))
        assert all(state.log.closed for state in states)
        return [state["answer"] for state in states]

    assert within(10, asyncio.run, main()) == [f"answer {i}" for i in range(20)]


def test_arun_raises_the_error_of_the_program() -> None:
    with pytest.raises(BackendError, match="no"):
        within(10, asyncio.run, answer.arun(backend=FakeBackend(BackendError("no"))))


def test_cancelling_arun_reaches_the_backend() -> None:
    backend = FakeBackend([threading.Event()])

    async def main() -> None:
        task = asyncio.create_task(answer.arun(backend=backend))
        while not backend.requests:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    within(10, asyncio.run, main())
    assert backend.left_early.wait(5)


def test_reads_block_inside_a_running_loop_too() -> None:
    async def main() -> str:
        return answer.run(backend=FakeBackend("text"))["answer"]

    assert within(10, asyncio.run, main()) == "text"


def test_the_log_of_a_stream_can_be_followed_by_others() -> None:
    state = answer.run(stream=True, backend=FakeBackend(["a", "b"]))
    texts = [event.text for event in state.log if isinstance(event, events.Text) and event.origin == "generated"]
    assert texts == ["a", "b"]
