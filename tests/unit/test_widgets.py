"""What the tools compute and send, without a page."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

pytest.importorskip("anywidget", reason="NO WIDGET TESTS: pip install anywidget")

from sgl_jupyter.lang.events import EventLog, GenerationStarted, Token, Tokens
from sgl_jupyter.widgets.playground import Playground, Sample, Trial, trial_program
from sgl_jupyter.widgets.token_inspector import TokenInspector, inspected_tokens

from .fake_backend import FakeBackend


class FakeState:
    """A finished state with the log-probabilities that an engine would have sent."""

    def __init__(self, meta: dict[str, Any] | None) -> None:
        self._meta = meta
        self.log = EventLog()
        self.log.append(GenerationStarted("x"))
        self.log.append(Tokens("x", "prompt", (Token(1, "<b>", None, cached=True), Token(2, "q", math.log(0.5)))))
        self.log.append(Tokens("x", "generated", (Token(3, "yes", math.log(0.25)), Token(4, None, math.log(0.75)))))
        self.log.append(Tokens("other", "generated", (Token(5, "no", -1.0),)))

    def get_meta_info(self, name: str) -> dict[str, Any] | None:
        return self._meta


META = {
    "output_token_logprobs": [],
    "output_top_logprobs": [[[math.log(0.25), 3, "yes"], [math.log(0.5), 6, "maybe"]], [[math.log(0.75), 4, None]]],
}


def test_tokens_come_with_probabilities_alternatives_and_marks() -> None:
    state: Any = FakeState(META)
    tokens = inspected_tokens(state, "x")
    assert [(token.text, token.origin, token.cached) for token in tokens] == [
        ("<b>", "prompt", True), ("q", "prompt", False), ("yes", "generated", False), ("4", "generated", False),
    ]  # fmt: skip
    assert [token.probability and round(token.probability, 6) for token in tokens] == [None, 0.5, 0.25, 0.75]
    assert [text for text, _ in tokens[2].alternatives] == ["maybe", "yes"]
    assert tokens[0].milliseconds is None
    assert tokens[2].milliseconds is not None


def test_without_logprobs_the_error_says_how_to_ask_for_them() -> None:
    state: Any = FakeState({})
    with pytest.raises(ValueError, match=r"gen\('x', return_logprob=True, top_logprobs_num=5"):
        TokenInspector(state, "x")


def test_static_html_of_tokens_is_escaped() -> None:
    state: Any = FakeState(META)
    inspector = TokenInspector(state, "x")
    assert "&lt;b&gt;" in inspector.static_html()
    assert "<b>" not in inspector.static_html()
    assert "25.0%  'yes'" in inspector.static_text()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "p", "samples": 9}, "samples must be in 1..8, not 9"),
        ({"prompt": "p", "constraint": "grammar"}, "constraint must be one of"),
        ({"prompt": "p", "constraint": "regex"}, "the regex is empty"),
    ],
)
def test_a_trial_that_cannot_be_says_why(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Trial(**fields)


def test_a_trial_as_a_cell_is_the_same_program() -> None:
    trial = Trial("Say 'hi'\n", temperature=0.5, max_tokens=9, samples=3, constraint="regex", pattern=r"\d+")
    assert trial.cell() == (
        "%%sgl -n 3\nuser(\"Say 'hi'\\n\")\nassistant(gen(\"answer\", temperature=0.5, max_tokens=9, regex='\\\\d+'))"
    )
    assert Trial("Once", chat=False).cell() == "%%sgl\n'Once'\ngen(\"answer\", temperature=1.0, max_tokens=128)"


def test_the_playground_sends_text_then_how_each_sample_ended() -> None:
    playground, sent, ended = Playground(FakeBackend(["Paris"])), [], threading.Event()

    def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["kind"] == "ended":
            ended.set()

    playground.send = send  # type: ignore[method-assign]
    playground.run(Trial("Capital of France?", samples=2))
    assert ended.wait(10)
    texts = ["".join(m["text"] for m in sent if m["kind"] == "delta" and m["sample"] == n) for n in range(2)]
    assert texts == ["Paris", "Paris"]
    assert [m["outcome"] for m in sent if m["kind"] == "delta" and m["outcome"]] == ["done", "done"]
    assert playground.static_text().endswith("Paris\n\nParis")


def test_a_sample_tells_its_end_once_however_long_the_others_take() -> None:
    state = trial_program.run(Trial("Capital of France?"), backend=FakeBackend(["Paris"]))
    state.sync()
    sample = Sample(state)
    assert sample.news() == ("Paris", "done")
    assert sample.news() == ("", None)


def test_an_error_in_a_message_reaches_the_page() -> None:
    playground, sent = Playground(), []
    playground.send = sent.append  # type: ignore[method-assign]
    playground._receive(None, {"kind": "run", "trial": {"prompt": ""}}, None)
    assert sent == [{"kind": "error", "message": "the prompt is empty"}]
