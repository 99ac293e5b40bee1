"""Programs: how a function becomes one, how it takes arguments, and what `run` promises."""

from __future__ import annotations

import contextvars
import inspect
import subprocess
import sys
import threading
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.lang import events
from sgl_jupyter.lang.config import GlobalConfig
from sgl_jupyter.lang.sampling import RUN_SETTINGS

from .fake_backend import FakeBackend, within


@sgl.function
def qa(s: Any, question: str, hint: str = "none") -> str:
    """Asks."""
    s += f"{question}/{hint}:" + sgl.gen("answer")
    return "returned"


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend(template="default")


def test_a_program_is_called_like_its_function(backend: FakeBackend) -> None:
    assert qa.run("Q", backend=backend).text() == "Q/none:an answer"
    assert qa(question="Q", hint="H", backend=backend).text() == "Q/H:an answer"
    assert qa.run("Q", backend=backend).ret_value == "returned"


def test_a_program_shows_the_name_documentation_and_signature_of_its_function() -> None:
    assert (qa.__name__, qa.__doc__) == ("qa", "Asks.")
    assert list(inspect.signature(qa).parameters) == ["s", "question", "hint"]


def test_run_returns_before_the_generation_is_finished() -> None:
    gate = threading.Event()
    state = within(5, lambda: qa.run("Q", backend=FakeBackend([gate, "late"])))
    gate.set()
    assert state["answer"] == "late"


def test_the_body_runs_in_the_thread_of_its_caller(backend: FakeBackend) -> None:
    threads: list[threading.Thread] = []
    sgl.function(lambda s: threads.append(threading.current_thread())).run(backend=backend)
    assert threads == [threading.current_thread()]


def test_sampling_parameters_of_run_hold_for_every_gen(backend: FakeBackend) -> None:
    qa.run("Q", temperature=0.25, max_new_tokens=3, stop="\n", seed=7, backend=backend).sync()
    (_, params) = backend.requests[0]
    assert (params.temperature, params.max_new_tokens, params.stop, params.seed) == (0.25, 3, ("\n",), 7)


def test_use_thread_is_accepted_as_sglang_takes_it(backend: FakeBackend) -> None:
    assert qa.run("Q", use_thread=False, backend=backend)["answer"] == "an answer"


@pytest.mark.parametrize("name", sorted(RUN_SETTINGS))
def test_ub1_a_parameter_that_is_named_like_a_sampling_parameter_is_the_programs(name: str) -> None:
    source: dict[str, Any] = {}
    exec(f"def program(s, {name}): return {name}", source)
    program, backend = sgl.function(source["program"]), FakeBackend()
    assert program.run(**{name: 3}, backend=backend).ret_value == 3
    assert program.run(4, backend=backend).ret_value == 4
    assert [state.ret_value for state in program.run_batch([{name: 5}, [6]], backend=backend)] == [5, 6]


@pytest.mark.parametrize("name", ["stream", "backend", "use_thread"])
def test_ub1_a_parameter_that_is_named_like_an_option_of_run_is_refused_when_the_program_is_made(name: str) -> None:
    source: dict[str, Any] = {}
    exec(f"def program(s, {name}): pass", source)
    with pytest.raises(TypeError, match=f"program has a parameter '{name}'.*another name"):
        sgl.function(source["program"])


def test_the_first_parameter_is_s() -> None:
    with pytest.raises(TypeError, match='The first argument must be "s"'):
        sgl.function(lambda state: None)
    with pytest.raises(TypeError, match='The first argument must be "s"'):
        sgl.function(lambda: None)


def test_a_coroutine_or_a_generator_is_no_program() -> None:
    async def coroutine(s: Any) -> None: ...

    def generator(s: Any) -> Any:
        yield s

    for func in (coroutine, generator):
        with pytest.raises(TypeError, match="must be a plain function"):
            sgl.function(func)


def test_arguments_that_do_not_fit_are_told_before_anything_runs(backend: FakeBackend) -> None:
    for stream in (False, True):
        with pytest.raises(TypeError, match=r"qa\(\): missing a required argument: 'question'"):
            qa.run(stream=stream, backend=backend)
        with pytest.raises(TypeError, match=r"qa\(\): got an unexpected .* 'temprature'; did you mean 'temperature'\?"):
            qa.run("Q", temprature=0, stream=stream, backend=backend)
    assert backend.requests == []


def test_an_exception_in_the_body_reaches_the_caller_and_ends_the_state() -> None:
    backend = FakeBackend([threading.Event()])
    states = []

    @sgl.function
    def fails(s: Any) -> None:
        states.append(s)
        s += sgl.gen("x")
        while not backend.requests:
            pass
        raise LookupError("in the body")

    with pytest.raises(LookupError, match="in the body"):
        fails.run(backend=backend)
    assert backend.left_early.wait(5), "what it had started is stopped"
    assert isinstance(within(5, list, states[0].log)[-1], events.Failed)


def test_an_interrupted_body_stops_its_generations() -> None:
    backend = FakeBackend([threading.Event()])

    @sgl.function
    def interrupted(s: Any) -> None:
        s += sgl.gen("x")
        while not backend.requests:
            pass
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.run(backend=backend)
    assert backend.left_early.wait(5)


def test_bound_arguments_win_over_those_of_the_call(backend: FakeBackend) -> None:
    bound = qa.bind(question="bound").bind(hint="also")
    assert bound.run(question="call", backend=backend).text() == "bound/also:an answer"
    assert qa.run("call", backend=backend).text() == "call/none:an answer"
    with pytest.raises(TypeError, match="no parameter 'other'"):
        qa.bind(other=1)


def test_ub4_bind_keeps_what_the_decorator_was_given() -> None:
    @sgl.function(num_api_spec_tokens=64)
    def program(s: Any, x: int) -> None: ...

    assert program.bind(x=1).num_api_spec_tokens == 64


def test_a_programs_own_description() -> None:
    @sgl.function
    def program(s: Any, a: int, /, b: int = 2, *, c: int = 3) -> None: ...

    assert (program.arg_names, program.arg_defaults) == (["a", "b"], (2,))
    assert repr(qa) == "<program qa(s, question, hint)>"


def test_a_program_with_keyword_arguments_takes_any(backend: FakeBackend) -> None:
    @sgl.function
    def any_keywords(s: Any, **kw: str) -> None:
        s += "-".join(kw.values())

    assert any_keywords.run(a="1", b="2", backend=backend).text() == "1-2"


def test_python_control_flow_depends_on_what_was_generated() -> None:
    @sgl.function
    def loop(s: Any) -> None:
        while "stop" not in s["x"] if "x" in s else True:
            s += sgl.gen("x") + " "

    backend = FakeBackend("one", "two", "stop", template="default")
    assert loop.run(backend=backend).text() == "one two stop "


def test_a_streaming_body_sees_the_context_variables_of_its_caller(backend: FakeBackend) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    program = sgl.function(lambda s: variable.get())
    variable.set("set")
    state = program.run(stream=True, backend=backend)
    state.sync()
    assert state.ret_value == "set"


def test_global_config_says_what_every_request_carries(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgl.global_config, "skip_special_tokens_in_output", False)
    qa.run("Q", backend=backend).sync()
    assert backend.requests[0][1].skip_special_tokens is False
    assert GlobalConfig().skip_special_tokens_in_output is True


def test_a_verbose_configuration_prints_each_programs_text(
    backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    qa.run("Q", backend=backend)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sgl.global_config, "verbosity", 2)
    qa.run("Q", backend=backend)
    assert capsys.readouterr().out == "Q/none:an answer\n"


def test_the_default_backend_is_used_and_run_can_name_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgl.global_config, "default_backend", None)
    sgl.set_default_backend(FakeBackend("default"))
    assert qa.run("Q")["answer"] == "default"
    assert qa.run("Q", backend=FakeBackend("other"))["answer"] == "other"


def test_every_name_that_is_offered_is_there_and_no_other() -> None:
    assert all(getattr(sgl, name) is not None for name in sgl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'generate'"):
        sgl.generate  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_import_loads_nothing_heavy() -> None:
    heavy = {"httpx", "IPython", "PIL", "torch", "transformers", "tqdm", "asyncio", "sgl_jupyter.lang"}
    code = f"import sys, sgl_jupyter; print(sorted({heavy} & sys.modules.keys()))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"


def test_a_process_with_a_running_generation_exits_at_once_and_quietly() -> None:
    code = """
import asyncio, sgl_jupyter as sgl
from sgl_jupyter.backends.base import BaseBackend
class Endless(BaseBackend):
    async def generate(self, prompt, params):
        await asyncio.sleep(3600)
        yield
sgl.function(lambda s: s.__iadd__(sgl.gen("x"))).run(backend=Endless(), stream=True)
print("done")
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "done\n", "")


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork on this platform")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_a_fork_of_the_process_new_programs_run() -> None:
    code = """
import os, sgl_jupyter as sgl
from sgl_jupyter.backends.base import BaseBackend, Chunk
class Echo(BaseBackend):
    async def generate(self, prompt, params):
        yield Chunk("text", {})
program = sgl.function(lambda s: s.__iadd__(sgl.gen("x")))
program.run(backend=Echo()).sync()
if os.fork() == 0:
    print(program.run(backend=Echo())["x"], flush=True)
    os._exit(0)
os.wait()
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert shown.stdout == "text\n", shown.stderr
