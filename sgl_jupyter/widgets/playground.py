"""A prompt, its parameters and a constraint, tried out: several samples side by side, as they are written."""

from __future__ import annotations

import html
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from sgl_jupyter.lang.api import assistant, gen, user
from sgl_jupyter.lang.events import EventLog, Failed, Stopped, Text
from sgl_jupyter.lang.program import function
from sgl_jupyter.lang.state import ProgramState

from .tool import Tool, source

MAX_SAMPLES = 8
PAUSE = 0.05
"""Seconds between two messages to the page while text arrives."""
ConstraintKind = Literal["none", "regex", "json_schema", "ebnf"]
CONSTRAINTS = ("none", "regex", "json_schema", "ebnf")


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried: a `chat` message or a text to continue, `samples` times."""

    prompt: str
    chat: bool = True
    temperature: float = 1.0
    max_tokens: int = 128
    samples: int = 1
    constraint: ConstraintKind = "none"
    pattern: str = ""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("the prompt is empty")
        if not 1 <= self.samples <= MAX_SAMPLES:
            raise ValueError(f"samples must be in 1..{MAX_SAMPLES}, not {self.samples}")
        if self.constraint not in CONSTRAINTS:
            raise ValueError(f"constraint must be one of {', '.join(CONSTRAINTS)}, not {self.constraint!r}")
        if self.constraint != "none" and not self.pattern:
            raise ValueError(f"the {self.constraint} is empty")

    def parameters(self) -> dict[str, Any]:
        """Arguments of `gen`."""
        limits = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return limits | ({} if self.constraint == "none" else {self.constraint: self.pattern})

    def cell(self) -> str:
        """The same as a `%%sgl` cell."""
        arguments = ", ".join(['"answer"', *(f"{name}={value!r}" for name, value in self.parameters().items())])
        options = f" -n {self.samples}" if self.samples > 1 else ""
        body = (
            f"user({self.prompt!r})\nassistant(gen({arguments}))" if self.chat else f"{self.prompt!r}\ngen({arguments})"
        )
        return f"%%sgl{options}\n{body}"


@function
def trial_program(s: ProgramState, trial: Trial) -> None:
    answer = gen("answer", **trial.parameters())
    if trial.chat:
        s += user(trial.prompt)
        s += assistant(answer)
    else:
        s += trial.prompt
        s += answer


@dataclass(slots=True)
class Sample:
    """One state of a trial, and how much of its log the page has."""

    state: ProgramState
    position: int = 0
    text: str = ""
    ended: bool = False

    @property
    def log(self) -> EventLog:
        return self.state.log

    def news(self) -> tuple[str, str | None]:
        """The text generated since the last call, and how the sample ended, if it has since then."""
        if self.ended:
            return "", None
        delta, outcome = "", None
        while self.position < len(self.log.events):
            event = self.log.events[self.position]
            self.position += 1
            if isinstance(event, Text) and event.origin in ("generated", "chosen", "forced"):
                delta += event.text
            elif isinstance(event, Failed):
                outcome = f"failed: {event.error}"
            elif isinstance(event, Stopped):
                outcome = "stopped"
        self.text += delta
        self.ended = self.log.closed and self.position == len(self.log.events)
        return delta, (outcome or "done") if self.ended else None


@dataclass(slots=True)
class Round:
    """One press of Run."""

    trial: Trial
    samples: list[Sample] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)


class Playground(Tool):
    """Runs what its page asks for on `backend`, or on the default one. `states` are those of the latest run."""

    _esm = source("playground.js")

    def __init__(self, backend: Any = None) -> None:
        super().__init__()
        self._backend = backend
        self._round: Round | None = None

    @property
    def states(self) -> list[ProgramState]:
        return [sample.state for sample in self._round.samples] if self._round else []

    def handle(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "run":
            self.run(Trial(**content["trial"]))
        elif kind == "stop":
            self.stop()
        elif kind == "copy":
            self.send({"kind": "cell", "text": Trial(**content["trial"]).cell()})

    def run(self, trial: Trial) -> None:
        """Start `trial` and return; one that runs is stopped."""
        self.stop()
        self._round = Round(trial)
        for _ in range(trial.samples):
            state = trial_program.run(trial, stream=True, backend=self._backend)
            self._round.samples.append(Sample(state))
        self.send({"kind": "started", "samples": trial.samples})
        threading.Thread(target=self._follow, args=[self._round], name="playground", daemon=True).start()

    def stop(self) -> None:
        """Stop what runs; its text stays."""
        for state in self.states:
            state.cancel()

    def close(self) -> None:
        self.stop()
        super().close()

    def _follow(self, followed: Round) -> None:
        """Send text as it arrives, in few messages, until all samples have ended or another round has begun."""
        while self._round is followed and not all(sample.ended for sample in followed.samples):
            for index, sample in enumerate(followed.samples):
                delta, outcome = sample.news()
                if delta or outcome:
                    self.send({"kind": "delta", "sample": index, "text": delta, "outcome": outcome})
            time.sleep(PAUSE)
        if self._round is followed:
            self.send({"kind": "ended", "seconds": round(time.monotonic() - followed.started, 1)})

    def static_html(self) -> str:
        if self._round is None:
            return "<em>Playground: nothing was run.</em>"
        samples = "".join(f"<pre><mark>{html.escape(sample.text)}</mark></pre>" for sample in self._round.samples)
        return f"<pre>{html.escape(self._round.trial.cell())}</pre>{samples}"

    def static_text(self) -> str:
        if self._round is None:
            return "Playground: nothing was run."
        return "\n\n".join([self._round.trial.cell(), *(sample.text for sample in self._round.samples)])
