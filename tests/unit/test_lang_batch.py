"""Batches: many runs of one program, their order, their errors, and how many threads they take."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import BackendError
from sgl_jupyter.backends.http import MAX_CONNECTIONS
from sgl_jupyter.lang import events
from sgl_jupyter.lang.program import begin_state

from .fake_backend import FakeBackend, within
from .fake_server import serve


@sgl.function
def echo(s: Any, word: str, mark: str = "") -> None:
    s += word + mark
    s += sgl.gen("echo")


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(lambda prompt: prompt.upper())


def words(n: int) -> list[dict[str, str]]:
    return [{"word": f"w{i} "} for i in range(n)]


def test_states_come_finished_and_in_the_order_of_the_items(backend: FakeBackend) -> None:
    states = echo.run_batch(words(20), backend=backend)
    assert [s["echo"] for s in states] == [f"W{i} " for i in range(20)]
    assert all(s.log.closed for s in states)


def test_items_are_dicts_or_lists_and_are_not_changed(backend: FakeBackend) -> None:
    items = [{"word": "a"}, ["b"], ("c", "!")]
    states = echo.bind(mark="?").run_batch(items[:2], backend=backend)
    assert [s["echo"] for s in states] == ["A?", "B?"]
    assert items == [{"word": "a"}, ["b"], ("c", "!")]
    assert [s["echo"] for s in echo.run_batch(items, backend=backend)] == ["A", "B", "C!"]


def test_no_items_give_no_states(backend: FakeBackend) -> None:
    assert echo.run_batch([], backend=backend) == []
    assert list(echo.run_batch([], backend=backend, generator_style=True)) == []


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("abc", "batch_kwargs must be a list"),
        ([{"word": "a"}, {"wrod": "b"}], r"batch_kwargs\[1\]: echo\(\)"),
        ([["a", "b", "c"]], r"batch_kwargs\[0\]: echo\(\)"),
        (["word"], r"batch_kwargs\[0\]: a dict or a list"),
    ],
)
def test_items_that_do_not_fit_are_told_before_anything_runs(items: Any, message: str, backend: FakeBackend) -> None:
    with pytest.raises(TypeError, match=message):
        echo.run_batch(items, backend=backend)
    assert backend.requests == []


def test_settings_of_the_batch_hold_for_every_gen(backend: FakeBackend) -> None:
    echo.run_batch(words(2), backend=backend, temperature=0.0, max_new_tokens=5)
    assert {(params.temperature, params.max_new_tokens) for _, params in backend.requests} == {(0.0, 5)}
    with pytest.raises(TypeError, match="'temprature'; did you mean 'temperature'"):
        echo.run_batch(words(2), backend=backend, temprature=0)


def test_ub17_to_ub19_bodies_run_once_for_each_item_and_nothing_is_traced(backend: FakeBackend) -> None:
    seen: list[Any] = []

    @sgl.function
    def program(s: Any, key: str) -> None:
        seen.append({"a": 1, "b": 2}[key])  # a placeholder would be a KeyError
        s += "a constant prefix that is long enough to be worth caching: more than 64 characters" + sgl.gen("x")
        while "DONE" not in s["x"]:  # and this would never end
            s += sgl.gen("x")

    backend = FakeBackend("DONE")
    within(10, lambda: program.run_batch([{"key": "a"}, {"key": "b"}], backend=backend))
    assert sorted(seen) == [1, 2]
    assert len(backend.requests) == 2
    assert backend.cached == []


def test_1000_generations_are_under_way_at_once_on_few_threads() -> None:
    gate = threading.Event()
    backend = FakeBackend([gate, "x"])
    before = {*threading.enumerate()}
    added: set[str] = set()

    def release() -> None:
        while len(backend.requests) < 1000:
            gate.wait(0.01)
        added.update(thread.name for thread in {*threading.enumerate()} - before)
        gate.set()

    threading.Thread(target=release, daemon=True, name="test").start()
    states = within(60, lambda: echo.run_batch(words(1000), backend=backend))
    assert len(states) == 1000
    bodies = {name for name in added if name.startswith("sgl-jupyter-batch")}
    assert len(bodies) <= min(96, 16 * (os.cpu_count() or 1))
    assert len(added - bodies) <= 3, "the loop's thread, and the test's own two"


def test_1000_states_share_the_connections_of_one_pool() -> None:
    with serve() as server:
        endpoint = sgl.RuntimeEndpoint(server.url)
        states = within(60, lambda: echo.run_batch(words(1000), backend=endpoint))
        assert [state["echo"] for state in states] == ["Hello, world!"] * 1000
        assert len(server.bodies) == 1000
        assert len(server.connections) <= MAX_CONNECTIONS


def test_num_threads_limits_the_runs_at_a_time() -> None:
    running, most = 0, 0
    three_are_there = threading.Event()

    class Counting(FakeBackend):
        async def generate(self, prompt: str, params: Any) -> Any:
            nonlocal running, most  # on the one loop
            running += 1
            most = max(most, running)
            if running == 3:
                asyncio.get_running_loop().call_later(0.05, three_are_there.set)  # time for a fourth one to come too
            async for chunk in super().generate(prompt, params):
                yield chunk
            running -= 1

    within(60, lambda: echo.run_batch(words(12), backend=Counting([three_are_there, "x"]), num_threads=3))
    assert most == 3


def test_ub3_the_first_error_is_raised_and_the_rest_is_stopped() -> None:
    states: list[sgl.ProgramState] = []

    @sgl.function
    def program(s: Any, i: int) -> None:
        states.append(s)
        if i == 7:
            raise LookupError("item 7")
        s += sgl.gen("x")

    with pytest.raises(LookupError, match="item 7"):
        within(10, lambda: program.run_batch([[i] for i in range(8)], backend=FakeBackend([threading.Event()])))
    last = [within(5, list, s.log)[-1] for s in states]
    assert all(isinstance(event, events.Stopped | events.Failed) for event in last)


def test_ub3_with_return_each_state_has_its_own_error() -> None:
    @sgl.function
    def program(s: Any, i: int) -> None:
        if i == 1:
            raise LookupError("in the body")
        s += str(i) + sgl.gen("x")

    def answer(prompt: str) -> Any:
        return BackendError("in the backend") if prompt == "2" else "fine"

    states = program.run_batch([[i] for i in range(4)], backend=FakeBackend(answer), on_error="return")
    assert [type(s.error()) for s in states] == [type(None), LookupError, BackendError, type(None)]
    assert (states[0]["x"], states[3]["x"]) == ("fine", "fine")
    with pytest.raises(ValueError, match="on_error must be"):
        program.run_batch([], on_error="ignore")


def test_generator_style_yields_in_order_as_they_are_done() -> None:
    gate = threading.Event()
    backend = FakeBackend(lambda prompt: [gate, "late"] if prompt.startswith("w1") else "early")
    states = echo.run_batch(words(3), backend=backend, generator_style=True)
    assert within(5, next, states)["echo"] == "early"
    gate.set()
    assert [s["echo"] for s in states] == ["late", "early"]


def test_leaving_a_generator_stops_the_rest() -> None:
    backend = FakeBackend(lambda prompt: [threading.Event()] if prompt.startswith("w1") else "early")
    states = echo.run_batch(words(2), backend=backend, generator_style=True)
    within(5, next, states)
    while len(backend.requests) < 2:
        pass
    states.close()
    assert backend.left_early.wait(5)


def test_an_interrupt_stops_every_run() -> None:
    backend = FakeBackend([threading.Event()])
    states: list[sgl.ProgramState] = []

    @sgl.function
    def program(s: Any) -> None:
        states.append(s)
        s += sgl.gen("x")

    def interrupt() -> None:
        while len(backend.requests) < 4:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        program.run_batch([{}] * 4, backend=backend)
    assert [within(5, list, s.log)[-1] for s in states] == [events.Stopped()] * 4


def test_an_interrupted_batch_leaves_what_had_finished_with_its_user() -> None:
    backend = FakeBackend("done", "done", [threading.Event()])

    def interrupt() -> None:
        while len(backend.requests) < 4:
            time.sleep(0.001)
        time.sleep(0.05)  # so that the first two have ended
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(sgl.BatchInterrupted, match=r"2 of 4 runs had finished.*sys\.last_value\.states") as raised:
        echo.run_batch(words(4), backend=backend, num_threads=4)
    finished = [state for state in raised.value.states if state.finished]
    assert [state["echo"] for state in finished] == ["done", "done"]
    assert [state.arguments["word"] for state in raised.value.states] == ["w0 ", "w1 ", "w2 ", "w3 "]
    assert isinstance(raised.value, KeyboardInterrupt)


def test_states_can_come_in_the_order_in_which_they_are_done() -> None:
    slow = threading.Event()
    backend = FakeBackend(lambda prompt: [slow, "late"] if "w0" in prompt else "early")
    states = iter(echo.run_batch(words(3), backend=backend, generator_style=True, order="completed"))
    early = [within(5, next, states)["echo"] for _ in range(2)]
    slow.set()
    assert [*early, *(state["echo"] for state in states)] == ["early", "early", "late"]
    with pytest.raises(ValueError, match='order must be "input" or "completed"'):
        echo.run_batch(words(1), backend=backend, order="random")  # pyright: ignore[reportArgumentType]


def test_a_state_knows_its_program_and_what_it_was_called_with(backend: FakeBackend) -> None:
    (state,) = echo.bind(mark="!").run_batch([["w"]], backend=backend)
    assert (state.program, state.arguments) == ("echo", {"word": "w", "mark": "!"})
    assert echo.run("w", backend=backend).arguments == {"word": "w", "mark": ""}
    assert echo.run("w", backend=backend, stream=True, temperature=0).arguments == {"word": "w", "mark": ""}

    @sgl.function
    def open_ended(s: Any, first: int, *rest: int, **named: int) -> None: ...

    assert open_ended.run(1, 2, x=3, backend=backend).arguments == {"first": 1, "rest": (2,), "x": 3}
    assert begin_state(backend).arguments == {}


def test_the_progress_bar_is_text_on_stderr(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    echo.run_batch(words(3), backend=backend, progress_bar=True)
    shown = capsys.readouterr()
    assert "3/3" in shown.err
    assert "token/s" in shown.err
    assert shown.out == ""
    echo.run_batch(words(3), backend=backend)
    assert capsys.readouterr().err == ""
