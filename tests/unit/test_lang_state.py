"""What a state promises its author: order, roles, variables, errors that surface at the read, and that nothing hangs."""

from __future__ import annotations

import _thread
import threading
import traceback

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import BackendError
from sgl_jupyter.lang import events
from sgl_jupyter.lang.program import begin_state

from .fake_backend import FakeBackend, within


def names(log: events.EventLog) -> list[str]:
    return [type(event).__name__ for event in log.events]


def test_text_is_what_was_appended_in_order() -> None:
    s = begin_state(FakeBackend("two", template="default"))
    s += "one " + sgl.gen("x")
    s += " three"
    assert s.text() == "one two three"
    assert s["x"] == "two"


def test_text_events_are_exactly_the_text_and_say_where_it_came_from() -> None:
    s = begin_state(FakeBackend(["Par", "is"], template="qwen"))
    s += sgl.user("Capital?") + sgl.assistant(sgl.gen("a") + " Sure: " + sgl.select("b", ["yes", "no"]))
    s.end()
    texts = [event for event in s.log if isinstance(event, events.Text)]
    assert "".join(event.text for event in texts) == s.text()
    assert [(event.text, event.origin, event.variable) for event in texts] == [
        ("<|im_start|>system\n", "template", None),
        ("You are a helpful assistant.", "prompt", None),
        ("<|im_end|>\n", "template", None),
        ("<|im_start|>user\n", "template", None),
        ("Capital?", "prompt", None),
        ("<|im_end|>\n", "template", None),
        ("<|im_start|>assistant\n", "template", None),
        ("Par", "generated", "a"),
        ("is", "generated", "a"),
        (" Sure: ", "prompt", None),
        ("yes", "chosen", "b"),
        ("<|im_end|>\n", "template", None),
    ]


def test_events_tell_the_course_of_a_run() -> None:
    s = begin_state(FakeBackend("x", template="default"))
    s += sgl.assistant(sgl.gen("a"))
    s.end()
    within(5, list, s.log)
    assert names(s.log) == [
        "RoleOpened", "Text", "GenerationStarted", "Text", "Usage", "VariableDone", "Text", "RoleClosed", "Finished"
    ]  # fmt: skip


def test_messages_are_a_log_of_roles_and_contents() -> None:
    s = begin_state(FakeBackend(" padded ", template="default"))
    s += "outside" + sgl.system("S") + sgl.user("U") + sgl.assistant(sgl.gen("a"))
    assert s.messages() == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "padded "},  # UB-32: stripped on the left here, and not in the text
    ]
    assert "ASSISTANT: padded \n" in s.text()


def test_the_default_system_prompt_comes_only_where_the_program_has_none() -> None:
    without, with_own = begin_state(FakeBackend(template="qwen")), begin_state(FakeBackend(template="qwen"))
    without += sgl.user("U")
    with_own += sgl.system("S") + sgl.user("U")
    assert [m["content"] for m in without.messages()] == ["You are a helpful assistant.", "U"]
    assert [m["content"] for m in with_own.messages()] == ["S", "U"]


def test_appending_does_not_wait_and_reading_does() -> None:
    gate = threading.Event()
    s = begin_state(FakeBackend(["a", gate, "b"]))
    within(5, s.__iadd__, sgl.gen("x"))
    gate.set()
    assert s["x"] == "ab"


def test_reading_one_variable_does_not_wait_for_later_ones() -> None:
    never = threading.Event()
    s = begin_state(FakeBackend("first", [never]))
    s += sgl.gen("x") + sgl.gen("y")
    assert within(5, lambda: s["x"]) == "first"
    s.cancel()


def test_reading_what_nothing_sets_is_a_key_error() -> None:
    s = begin_state(FakeBackend())
    s += sgl.gen("x")
    with pytest.raises(KeyError, match="y") as caught:
        within(5, lambda: s["y"])
    assert caught.value.__notes__ == ["nothing sets it; there is 'x'"]


def test_a_variable_is_in_the_state_as_soon_as_it_is_sure_to_come() -> None:
    s = begin_state(FakeBackend())
    s += sgl.gen("x")
    assert "x" in s
    assert "y" not in s


def test_meta_info_is_that_of_the_server() -> None:
    s = begin_state(FakeBackend(["a", "b"]))
    s += sgl.gen("x")
    assert s.get_meta_info("x") == {"completion_tokens": 2, "finish_reason": {"type": "stop"}}  # UB-35: why it ended
    assert s.get_meta_info("unknown") is None


def test_ub8_n_samples_are_a_list_and_the_text_goes_on_with_the_first() -> None:
    s = begin_state(FakeBackend("one", "two", template="default"))
    s += "> " + sgl.gen("x", n=2) + "!"
    assert s["x"] == ["one", "two"]
    assert s.text() == "> one!"
    meta_info = s.get_meta_info("x")
    assert meta_info is not None
    assert (meta_info["completion_tokens"], len(meta_info["samples"])) == (2, 2)


def test_ub11_appending_a_bound_role_once_more_adds_nothing() -> None:
    s = begin_state(FakeBackend())
    s += s.system("S") + "!"
    s.user("U")
    assert s.text() == "<|im_start|>system\nS<|im_end|>\n!<|im_start|>user\nU<|im_end|>\n"


def test_ub11_a_bound_role_of_one_state_can_be_appended_to_another() -> None:
    one, other = begin_state(FakeBackend()), begin_state(FakeBackend())
    other += one.user("U")
    assert other.text() == one.text() != ""


def test_ub12_an_exception_inside_a_role_closes_it() -> None:
    s = begin_state(FakeBackend())

    def fail_inside() -> None:
        with s.user():
            s.set_var("x", "before")
            raise LookupError

    with pytest.raises(LookupError):
        fail_inside()
    s += sgl.assistant("after")
    assert [m["content"] for m in s.messages()] == ["", "after"]


def test_nested_roles_are_told_to_the_line_that_nests_them() -> None:
    s = begin_state(FakeBackend())
    with pytest.raises(ValueError, match="Nested roles are not allowed"), s.user():
        s += sgl.assistant("inside")
    with pytest.raises(ValueError, match="no role is open"):
        s += sgl.user_end()
    assert s.text() == "<|im_start|>user\n<|im_end|>\n"


@pytest.mark.parametrize(("wrong", "error"), [(5, TypeError), (None, ValueError)])
def test_ub13_appending_what_is_no_text_fails_at_once(wrong: object, error: type[Exception]) -> None:
    s = begin_state(FakeBackend())
    with pytest.raises(error, match="append"):
        s += wrong  # pyright: ignore[reportOperatorIssue]
    s += "the state goes on"
    assert s.text() == "the state goes on"


def test_ub14_a_variable_that_is_set_is_not_overwritten_by_a_generation_before() -> None:
    gate = threading.Event()
    s = begin_state(FakeBackend([gate, "generated"]))
    s += sgl.gen("x")
    s["x"] = "set"
    gate.set()
    s.sync()
    assert s["x"] == "set"


def test_a_variable_can_be_set_when_the_program_has_ended() -> None:
    gate = threading.Event()
    s = begin_state(FakeBackend([gate, "12"]))
    s += sgl.gen("x")
    s.end()
    s["y"] = "in its turn"
    gate.set()
    s["x"] = int(s["x"])
    assert (s["x"], s["y"]) == (12, "in its turn")
    s.sync()
    s["x"], s["z"] = s["x"] + 1, "new"
    assert (s["x"], s["z"], "z" in s) == (13, "new", True)
    assert s.get_meta_info("x")["finish_reason"] == {"type": "stop"}, "it is still what was generated"  # type: ignore[index]
    assert s.text() == "12"
    with pytest.raises(RuntimeError, match="the program has ended"):
        s += "more"


def test_a_var_scope_is_all_text_appended_inside() -> None:
    s = begin_state(FakeBackend("Paris"))
    s += "before "
    with s.var_scope("scope"):
        s += "It is " + sgl.gen("x") + "."
    s += " after"
    assert s["scope"] == "It is Paris."


def test_ub26_an_error_is_raised_by_every_later_use_and_never_hangs() -> None:
    s = begin_state(FakeBackend("fine", ["part", BackendError("out of order", 500)]))
    s += sgl.gen("x")
    s += sgl.gen("y") + "never"

    def append() -> None:
        nonlocal s
        s += "more"

    uses = [lambda: s["y"], lambda: s["x"], s.text, s.sync, s.messages, lambda: s.get_meta_info("y"), append, s.fork,
            lambda: list(s.text_iter())]  # fmt: skip
    for use in uses:
        with pytest.raises(BackendError, match="out of order"):
            within(5, use)
    error = within(5, s.error)
    assert isinstance(error, BackendError)
    assert error.status == 500
    assert "part" in repr(s)


def test_an_error_shows_the_line_that_read_and_the_expression_that_failed() -> None:
    s = begin_state(FakeBackend(BackendError("no")))
    s += sgl.gen("x")
    for _ in range(3):
        with pytest.raises(BackendError) as caught:
            s["x"]  # the reading line
    shown = "".join(traceback.format_exception(caught.value))
    assert 's["x"]  # the reading line' in shown
    assert shown.count("in raise_error") == 1, "the traceback does not grow with each read"
    assert "while running Gen('x')" in shown


def test_cancel_keeps_partial_text_and_closes_the_request() -> None:
    backend = FakeBackend(["part", threading.Event()])
    s = begin_state(backend)
    s += "> " + sgl.gen("x") + sgl.gen("y")
    assert within(5, s.log.wait, 2)  # the first text has come
    s.cancel()
    assert within(5, lambda: s["x"]) == "part"
    assert s.text() == "> part"
    assert s.error() is None
    assert backend.left_early.wait(5)
    assert isinstance(s.log.events[-1], events.Stopped)
    with pytest.raises(sgl.ProgramStopped):
        s["y"]
    with pytest.raises(sgl.ProgramStopped):
        s += "more"


def test_cancel_before_and_after_everything_is_harmless() -> None:
    idle, done = begin_state(FakeBackend()), begin_state(FakeBackend())
    idle.cancel()
    done += "all"
    done.end()
    done.sync()
    done.cancel()
    assert names(idle.log) == ["Stopped"]
    assert names(done.log) == ["Text", "Finished"]


def test_an_interrupt_while_reading_stops_the_state() -> None:
    backend = FakeBackend([threading.Event()])
    s = begin_state(backend)
    s += sgl.gen("x")
    threading.Timer(0.1, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        s["x"]
    assert backend.left_early.wait(5)
    assert list(within(5, list, s.log))[-1] == events.Stopped()


def test_an_ended_state_can_be_read_and_forked_but_not_extended() -> None:
    s = begin_state(FakeBackend())
    s += "text"
    s.end()
    with pytest.raises(RuntimeError, match="has ended"):
        s += "more"
    (child,) = s.fork(1)
    child += " and more"
    assert (s.text(), child.text()) == ("text", "text and more")


def test_repr_does_not_wait() -> None:
    s = begin_state(FakeBackend(["part", threading.Event()]))
    s += sgl.gen("x")
    within(5, s.log.wait, 1)
    assert within(5, repr, s) == "ProgramState(running)\npart"
    s.cancel()


def test_many_idle_states_need_no_thread_each() -> None:
    states = [begin_state(FakeBackend()) for _ in range(50)]
    for s in states:
        s += sgl.gen("x")
    assert [s["x"] for s in states] == ["an answer"] * 50
    assert sum(thread.name == "sgl-jupyter" for thread in threading.enumerate()) == 1
    assert threading.active_count() < 50


def test_without_a_backend_the_error_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"launch an engine and call set_default_backend"):
        begin_state()


def test_anything_with_an_endpoint_is_a_backend() -> None:
    class Engine:
        endpoint = FakeBackend("from the endpoint")

    s = begin_state(Engine())
    s += sgl.gen("x")
    assert s["x"] == "from the endpoint"
    with pytest.raises(TypeError, match="backend must be"):
        begin_state("http://localhost")
