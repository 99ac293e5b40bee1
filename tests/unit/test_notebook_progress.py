"""What a run tells while it goes on: what it waits for, its tokens and its speed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sgl_jupyter.backends.base import BackendUnreachable
from sgl_jupyter.lang.events import EventLog, GenerationStarted, PromptRead, Text
from sgl_jupyter.notebook import progress
from sgl_jupyter.notebook.html import run_html
from sgl_jupyter.notebook.progress import EngineWatch, waiting_words
from sgl_jupyter.notebook.run import Run

from .notebook_logs import open_message

LONG = {"prompt_tokens": 4000, "cached_tokens": 0, "computed_tokens": 1500}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"running_requests": 3, "waiting_requests": 2}, "queued behind 4 requests"),
        ({"running_requests": 1, "waiting_requests": 1}, "queued behind 1 request"),
        ({"running_requests": 2, "waiting_requests": 0}, "prefill"),
        ({"running_requests": 2, "waiting_requests": 0, "prefilling": [LONG, LONG]}, "prefill"),
        ({"running_requests": 2, "waiting_requests": 0, "prefilling": [LONG]}, "prefill of 4,000 tokens · 1,500 read"),
        (
            {"running_requests": 1, "waiting_requests": 0, "prefilling": [LONG | {"cached_tokens": 1000}]},
            "prefill of 4,000 tokens, 1,000 of them cached · 1,500 read",
        ),
        ({"running_requests": 0, "waiting_requests": 0}, ""),
        ({"last_gen_throughput": 5.0}, ""),
    ],
)
def test_what_a_request_waits_for(state: dict[str, Any], words: str) -> None:
    assert waiting_words({"internal_states": [state]}) == words
    assert waiting_words({"internal_states": state}) == words


def test_a_server_that_tells_nothing_is_only_waited_for() -> None:
    assert waiting_words({}) == waiting_words({"internal_states": []}) == ""


def test_the_engine_is_asked_one_question_at_a_time_and_never_waited_for() -> None:
    asked, answer, answered = [], threading.Event(), threading.Event()

    def ask() -> dict[str, Any]:
        asked.append(threading.current_thread().name)
        answer.wait(10)
        answered.set()
        return {"internal_states": [{"running_requests": 1, "waiting_requests": 1}]}

    watch = EngineWatch(ask)
    long_ago = progress.time.monotonic() - 10
    assert watch.words(progress.time.monotonic()) == ""
    assert asked == []
    assert watch.words(long_ago) == watch.words(long_ago) == ""
    answer.set()
    answered.wait(10)
    _thread_of(watch).join(10)
    assert watch.words(long_ago) == "queued behind 1 request"
    assert asked == ["sgl-engine-watch"]


def test_an_engine_that_cannot_be_asked_is_only_waited_for() -> None:
    def ask() -> dict[str, Any]:
        raise BackendUnreachable("gone")

    watch = EngineWatch(ask)
    watch.words(progress.time.monotonic() - 10)
    _thread_of(watch).join(10)
    assert watch.words(progress.time.monotonic() - 10) == ""


def test_tokens_and_their_speed_are_told_while_text_arrives() -> None:
    log = EventLog()
    open_message(log, "assistant")
    log.append(GenerationStarted("x"))
    for count in range(1, 5):
        log.append(Text("word ", "generated", "x", completion_tokens=10 * count))
    log.times[-5:] = [0.0, 1.0, 1.5, 2.0, 2.5]
    assert "assistant · generating · 40 tokens · 20 tokens/s" in run_html(Run.from_log(log))


def test_the_prompt_and_what_of_it_was_cached_are_told_while_text_arrives() -> None:
    log = EventLog()
    open_message(log, "assistant")
    log.append(GenerationStarted("x"))
    log.append(PromptRead("x", prompt_tokens=1024, cached_tokens=1000))
    log.append(Text("word ", "generated", "x", completion_tokens=1))
    assert "assistant · generating · 1 token · prompt of 1,024 tokens, 1,000 cached" in run_html(Run.from_log(log))


def test_where_no_counts_are_told_only_the_state_is_shown() -> None:
    log = EventLog()
    open_message(log, "assistant")
    log.append(GenerationStarted("x"))
    log.append(Text("word ", "generated", "x"))
    log.append(Text("word ", "generated", "x"))
    assert "assistant · generating</div>" in run_html(Run.from_log(log))


def _thread_of(watch: EngineWatch) -> threading.Thread:
    assert watch._thread is not None
    return watch._thread
