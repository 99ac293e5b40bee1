"""Forks: copies that go on in parallel, and what comes back from them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import BackendError
from sgl_jupyter.lang import events
from sgl_jupyter.lang.program import begin_state

from .fake_backend import FakeBackend, within


def test_forks_go_on_from_the_text_and_the_variables_of_their_parent() -> None:
    s = begin_state(FakeBackend("a", "b", template="default"))
    s += "parent " + sgl.gen("x")
    forks = s.fork(2)
    for i, fork in enumerate(forks):
        fork += f" child {i}"
    assert [fork.text() for fork in forks] == ["parent a child 0", "parent a child 1"]
    assert [fork["x"] for fork in forks] == ["a", "a"]
    assert s.text() == "parent a"


def test_forks_generate_at_the_same_time() -> None:
    meeting = [threading.Event(), threading.Event()]

    def answer(prompt: str) -> list[Any]:
        i = int(prompt[-1])
        meeting[i].set()
        return [meeting[1 - i], "met"]  # goes on only when the other has begun

    s = begin_state(FakeBackend(answer))
    forks = s.fork(2)
    forks += lambda i: str(i) + sgl.gen("x")
    assert within(5, lambda: [fork["x"] for fork in forks]) == ["met", "met"]


def test_ub21_the_common_prefix_is_cached_once_and_only_when_it_is_complete() -> None:
    gate = threading.Event()
    backend = FakeBackend([gate, "generated"])
    s = begin_state(backend)
    s += "text " + sgl.gen("x")
    threading.Timer(0.05, gate.set).start()
    s.fork(3)
    assert backend.cached == ["text generated"]


@pytest.mark.parametrize(("text", "size"), [("", 2), ("text", 1)])
def test_nothing_is_cached_where_nothing_is_shared(text: str, size: int) -> None:
    backend = FakeBackend()
    s = begin_state(backend)
    s += text
    s.fork(size)
    assert backend.cached == []


def test_a_fork_inside_a_role_goes_on_inside_it() -> None:
    s = begin_state(FakeBackend())
    s += sgl.user_begin() + "begun"
    (fork,) = s.fork(1)
    fork += ", ended" + sgl.user_end()
    assert fork.messages() == [{"role": "user", "content": "begun, ended"}]


@pytest.mark.parametrize(
    "appended", ["same", sgl.user("same"), lambda i: "same", ["same", "same"], ("same", "same")], ids=repr
)
def test_ub22_text_can_be_appended_to_all_forks_and_in_each_other_way(appended: Any) -> None:
    forks = begin_state(FakeBackend(template="claude")).fork(2)
    forks += appended
    assert all(fork.text().endswith("same") for fork in forks)


def test_appending_to_forks_what_does_not_fit_is_an_error() -> None:
    forks = begin_state(FakeBackend()).fork(2)
    with pytest.raises(ValueError, match="Invalid value"):
        forks += 5  # pyright: ignore[reportOperatorIssue]
    with pytest.raises(ValueError, match="shorter"):
        forks += ["only one"]


def test_one_fork_is_appended_to_by_its_index() -> None:
    forks = begin_state(FakeBackend()).fork(2)
    forks[1] += "second"
    assert [fork.text() for fork in forks] == ["", "second"]
    with pytest.raises(TypeError, match="cannot be replaced"):
        forks[0] = forks[1]


def test_join_gathers_new_variables_as_lists() -> None:
    s = begin_state(FakeBackend(template="default"))
    s["old"] = "kept"
    forks = s.fork(2)
    for i, fork in enumerate(forks):
        fork["old"] = "changed"
        fork["new"] = i
    forks[1]["rare"] = "only here"
    forks.join()
    assert (s["old"], s["new"], s["rare"]) == ("kept", [0, 1], [None, "only here"])
    assert s.text() == ""


def test_ub23_join_can_append_the_texts_of_the_forks() -> None:
    s = begin_state(FakeBackend(lambda prompt: prompt[-1].upper()))
    s += "> "
    forks = s.fork(2)
    forks += lambda i: "ab"[i] + sgl.gen("x")
    forks.join("concate_and_append")
    assert s.text() == "> aAbB"


def test_an_unknown_join_mode_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Invalid join mode"):
        begin_state(FakeBackend()).fork(2).join("other")


def test_copy_is_a_fork_of_one_that_is_joined() -> None:
    s = begin_state(FakeBackend("aside"))
    s += "text"
    with s.copy() as copied:
        copied += sgl.gen("x")
    assert (s.text(), s["x"]) == ("text", ["aside"])


def test_the_log_of_a_child_starts_at_the_fork_and_ends_with_its_parent() -> None:
    s = begin_state(FakeBackend())
    s += "parent"
    forks = s.fork(2)
    forks += "child"
    s.end()
    (forked,) = [event for event in s.log if isinstance(event, events.Forked)]
    assert forked.children == tuple(fork.log for fork in forks)
    for child in forked.children:
        assert list(within(5, list, child)) == [events.Text("child", "prompt"), events.Finished()]


def test_joined_children_are_ended() -> None:
    s = begin_state(FakeBackend())
    forks = s.fork(2)
    forks.join()
    assert [list(within(5, list, fork.log)) for fork in forks] == [[events.Finished()]] * 2
    assert events.Joined() in s.log.events


def test_an_error_in_a_fork_is_raised_where_it_is_read() -> None:
    s = begin_state(FakeBackend(BackendError("no")))
    forks = s.fork(2)
    forks[1] += sgl.gen("x")
    with pytest.raises(BackendError, match="no"):
        within(5, forks.join)
    s += "the parent goes on"
    assert s.text() == "the parent goes on"


def test_cancelling_the_parent_cancels_the_children() -> None:
    backend = FakeBackend(["part", threading.Event()])
    s = begin_state(backend)
    (child,) = s.fork(1)
    child += sgl.gen("x")
    within(5, child.log.wait, 1)
    s.cancel()
    assert backend.left_early.wait(5)
    assert within(5, lambda: child["x"]) == "part"


def test_a_fork_of_none_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="size must be at least 1"):
        begin_state(FakeBackend()).fork(0)
