"""Several states as one table."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from sgl_jupyter import assistant, dataframe, function, gen, user
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
        "#  word       said       status  tokens\n"
        "0  one        one        done    3\n"
        "1  two lines  two lines  done    3"
    )


def test_a_row_without_arguments_shows_what_the_user_said() -> None:
    @function
    def same(s: Any) -> None:
        s += user("hello") + assistant(gen("said"))

    found = Batch.of(same.run_batch([{}, {}], backend=Echo()))
    assert found is not None
    assert found.text().splitlines()[:2] == ["#  user   said   status  tokens", "0  hello  hello  done    3"]


def test_inputs_are_named_by_the_parameters_however_they_are_given() -> None:
    @function
    def ask(s: Any, word: str, times: int = 2) -> None:
        s += user(word) + assistant(gen("said"))

    found = Batch.of(ask.run_batch([["one"], {"word": "two", "times": 3}], backend=Echo()))
    assert found is not None
    assert [line.split() for line in found.text().splitlines()] == [
        ["#", "word", "times", "said", "status", "tokens"],
        ["0", "one", "2", "one", "done", "3"],
        ["1", "two", "3", "two", "done", "3"],
    ]


def test_a_dataframe_has_all_of_a_batch() -> None:
    pytest.importorskip("pandas")
    words = ["one", "fail", *["x" * 1000] * MAX_ROWS]
    states = echo.run_batch([{"word": word} for word in words], backend=Echo(), on_error="return")
    table = dataframe(list(states))
    assert list(table.columns) == ["word", "said", "status", "tokens", "error"]
    assert list(table["word"]) == words
    assert list(table.iloc[0])[:4] == ["one", "one", "done", 3]
    assert list(table["error"].isna()) == [True, False, *[True] * MAX_ROWS]
    assert list(table.iloc[1])[2:] == ["error", 0, "BackendError: out of memory"]
    assert list(table["said"])[2:] == words[2:]


def test_a_dataframe_is_of_states() -> None:
    pytest.importorskip("pandas")
    assert len(dataframe([])) == 0
    with pytest.raises(TypeError, match="takes a list of states"):
        dataframe([1])  # pyright: ignore[reportArgumentType]


def test_a_dataframe_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        dataframe([])


def test_html_marks_what_was_generated_and_is_what_every_sanitizer_allows() -> None:
    page = Page(batch("one", HOSTILE.replace("\ud800", "")).html())
    assert page.texts["th"] == ["#", "word", "said", "status", "tokens"]
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
    assert data["text/plain"].startswith("#  word")
    assert "ProgramState" in formatter.format({"nested": states})[0]["text/plain"]
