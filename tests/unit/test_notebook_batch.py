"""Several states as one table."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from sgl_jupyter import assistant, function, gen, user
from sgl_jupyter.backends.base import BackendError, BaseBackend, Chunk, SamplingParams
from sgl_jupyter.notebook.batch import MAX_HTML_CELL, MAX_ROWS, MAX_TEXT_CELL, Batch, show_batches

from .test_notebook_views import HOSTILE, Page


class Echo(BaseBackend):
    """Answers with the last word that the user said; fails at "fail"."""

    model_path = "tiny-chat"

    async def generate(self, prompt: str, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        word = prompt.rsplit("user\n", 1)[1].split("<|im_end|>")[0]
        if word == "fail":
            raise BackendError("out of memory")
        yield Chunk(word, {"completion_tokens": 3})


@function
def echo(s: Any, word: str) -> None:
    s += user(word)
    s += assistant(gen("said"))


def batch(*words: str) -> Batch:
    states = echo.run_batch([{"word": word} for word in words], backend=Echo(), on_error="return")
    found = Batch.of(states)
    assert found is not None
    return found


def test_one_row_a_run() -> None:
    assert batch("one", "two\n lines").text() == (
        "#  user       said       status  tokens\n"
        "0  one        one        done    3\n"
        "1  two lines  two lines  done    3"
    )


def test_html_marks_what_was_generated_and_is_what_every_sanitizer_allows() -> None:
    page = Page(batch("one", HOSTILE.replace("\ud800", "")).html())
    assert page.texts["th"] == ["#", "user", "said", "status", "tokens"]
    assert page.texts["mark"][0] == "one"
    assert page.texts["td"][:2] == ["0", "one"]


def test_a_run_that_failed_says_so_in_its_row() -> None:
    lines = batch("one", "fail").text().splitlines()
    assert lines[1].split() == ["0", "one", "one", "done", "3"]
    assert "failed: BackendError: out of memory" in lines[2]


def test_the_size_is_bounded_with_a_visible_note() -> None:
    table = batch("long " * 1000, *["x"] * (MAX_ROWS + 1))
    assert table.text().endswith("[2 more rows are not shown here]")
    assert "2 more rows are not shown here" in table.html()
    assert len(table.text().splitlines()) == MAX_ROWS + 2
    assert max(map(len, table.text().splitlines())) < 3 * MAX_TEXT_CELL
    longest = max(map(len, Page(table.html()).texts["mark"]))
    assert longest == MAX_HTML_CELL


@pytest.mark.parametrize("other", [[], [1, 2], (), "text", None, [None]])
def test_other_values_are_no_batch(other: Any) -> None:
    assert Batch.of(other) is None


class ShowsItself(list[int]):
    def _repr_html_(self) -> str:
        return "<i>mine</i>"


def test_other_lists_are_shown_as_before() -> None:
    before, after = DisplayFormatter(), DisplayFormatter()
    show_batches(after)
    for value in ([], [1, [2]], ShowsItself([3]), {"a": [1]}):
        assert after.format(value) == before.format(value)


def test_states_and_forks_are_shown_as_a_table() -> None:
    formatter = DisplayFormatter()
    show_batches(formatter)
    states = echo.run_batch([{"word": "one"}], backend=Echo())
    data, _ = formatter.format(states)
    assert "<table>" in data["text/html"]
    assert data["text/plain"].startswith("#  user")
    assert "ProgramState" in formatter.format({"nested": states})[0]["text/plain"]
