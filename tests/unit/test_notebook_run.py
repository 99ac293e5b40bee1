"""The run record: complete, and equal whether it is read at once or followed."""

from __future__ import annotations

import pytest

from sgl_jupyter.lang.events import EventLog, Failed, Finished, Forked, RoleClosed, Stopped, Text, VariableDone
from sgl_jupyter.notebook.run import Follower, Fork, Message, Run

from .notebook_logs import add_message, chat, constrained, cut_off, forks, open_message, samples, start_generation


def test_text_is_all_text_in_order() -> None:
    log = chat()
    assert Run.from_log(log).text == "".join(event.text for event in log.events if isinstance(event, Text))


def test_messages_hold_segments_by_origin() -> None:
    run = Run.from_log(chat())
    assert [block.role for block in run.blocks if isinstance(block, Message)] == ["user", "assistant"]
    shown = [(s.origin, s.variable, s.text) for s in run.segments if s.origin != "template"]
    assert shown == [
        ("prompt", None, "What is 2 * 2?"),
        ("prompt", None, "I need a "),
        ("chosen", "tool", "calculator"),
        ("prompt", None, ".\n"),
        ("generated", "expression", "2 * 2"),
    ]


def test_forced_and_free_text_of_one_request_share_its_generation() -> None:
    segments = [s for s in Run.from_log(constrained()).segments if s.origin != "template"]
    assert [s.origin for s in segments] == ["forced", "generated", "forced"]
    assert {s.generation for s in segments} == {1}


def test_two_generations_side_by_side_stay_apart() -> None:
    log = EventLog()
    add_message(log, "assistant", ("x", [("generated", "one")]), ("x", [("generated", "two")]))
    assert [s.text for s in Run.from_log(log).segments if s.variable == "x"] == ["one", "two"]
    assert Run.from_log(log)["x"] == "two"


def test_a_variable_that_is_set_meanwhile_does_not_end_the_generation() -> None:
    log = EventLog()
    open_message(log, "assistant")
    start_generation(log, "x", ("generated", "one "))
    log.append(VariableDone("other", 1, None))
    log.append(Text("two", "generated", "x"))
    run = Run.from_log(log)
    assert [s.text for s in run.segments if s.variable == "x"] == ["one two"]
    assert run.progress is not None
    log.append(VariableDone("x", "one two", None))
    assert Run.from_log(log).progress is None


def test_usage_sums_all_requests_and_forks() -> None:
    usage = Run.from_log(forks()).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (30, 6, 12)


def test_value_given_at_the_end_wins_over_the_text() -> None:
    log = EventLog()
    start_generation(log, "x", ("generated", "first"))
    log.append(VariableDone("x", ["first", "second"], None))
    assert Run.from_log(log)["x"] == ["first", "second"]


@pytest.mark.parametrize("first", ["red", ""])
def test_all_samples_of_a_request_are_kept(first: str) -> None:
    run = Run.from_log(samples(first, "blue"))
    (segment,) = (s for s in run.segments if s.variable == "x")
    assert (segment.text, segment.others, run["x"]) == (first, ["blue"], [first, "blue"])
    clipped = run.clipped(len(run.text) + 1)
    assert (list(clipped.segments)[1].others, clipped.left_out) == (["b"], 3)


@pytest.mark.parametrize(("last", "status"), [(Stopped(), "stopped"), (Failed(ValueError("no")), "error")])
def test_a_run_that_was_cut_off_keeps_its_partial_text(last: Stopped | Failed, status: str) -> None:
    run = Run.from_log(cut_off(last))
    assert (run.status, run["story"], run.generating) == (status, "Once upon", None)
    assert run.error is (last.error if isinstance(last, Failed) else None)


def test_forks_are_runs_of_their_own() -> None:
    run = Run.from_log(forks())
    (fork,) = (block for block in run.blocks if isinstance(block, Fork))
    assert [child.variables for child in fork.children] == [{"tip1": "Tip 1."}, {"tip2": "Tip 2."}]
    assert "Tip" not in run.text


def test_text_after_a_fork_inside_a_message_belongs_to_its_role() -> None:
    log = EventLog()
    open_message(log, "assistant", "before")
    log.append(Forked((EventLog(),)))
    log.append(Text("after", "prompt"))
    log.append(RoleClosed("assistant"))
    log.append(Text("outside", "prompt"))
    roles = [(b.role, b.segments[-1].text) for b in Run.from_log(log).blocks if isinstance(b, Message)]
    assert roles == [("assistant", "before"), ("assistant", "after"), (None, "outside")]


def test_following_gives_the_same_record_as_reading_at_once() -> None:
    source = chat()
    log = EventLog()
    follower = Follower(log)
    assert not follower.advance()
    for event in source.events:
        log.append(event)
        assert follower.advance()
        assert not follower.advance()
    run, at_once = follower.run, Run.from_log(source)
    assert (run.blocks, run.variables, run.status) == (at_once.blocks, at_once.variables, at_once.status)


def test_a_follower_is_closed_only_when_the_forks_are() -> None:
    log, child = EventLog(), EventLog()
    log.append(Forked((child,)))
    log.append(Finished())
    follower = Follower(log)
    follower.advance()
    assert not follower.closed
    child.append(Finished())
    follower.advance()
    assert follower.closed


def test_clipping_counts_what_is_left_out_and_leaves_the_run_alone() -> None:
    run = Run.from_log(forks())
    whole = len(run.text) + sum(
        len(child.text) for block in run.blocks if isinstance(block, Fork) for child in block.children
    )
    clipped = run.clipped(40)
    kept = len(clipped.text)
    left_out = clipped.left_out
    for block in clipped.blocks:
        if isinstance(block, Fork):
            kept += sum(len(child.text) for child in block.children)
            left_out += sum(child.left_out for child in block.children)
    assert (kept, left_out) == (40, whole - 40)
    assert run.left_out == 0
    assert run.clipped(whole).text == run.text


def test_repr_is_short_and_says_how_it_ended() -> None:
    assert repr(Run.from_log(cut_off(Stopped()))) == "Run(stopped: story='Once upon')"
