"""The run record: what a run said so far, as plain data.

It is built from event logs and from nothing else, so the display, saving and recording all see the same run, and a run that
was stopped or that failed keeps every character it had.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sgl_jupyter.lang import events
from sgl_jupyter.lang.events import Event, EventLog, Origin, Token
from sgl_jupyter.lang.ir import reasoning_name
from sgl_jupyter.notebook.pictures import Picture
from sgl_jupyter.notebook.progress import Progress, Usage

Status = Literal["running", "done", "stopped", "error"]
Kind = Origin | Literal["reasoning"]
"""Where a segment came from. Reasoning is no part of the run's text."""


@dataclass(slots=True)
class Segment:
    """A stretch of text with one origin. Segments with the same `generation` number came from one request."""

    text: str
    origin: Kind
    variable: str | None = None
    generation: int | None = None
    others: list[str] = field(default_factory=list)
    """The other samples, where the request drew several: the text goes on with this one."""
    picture: Picture | None = None
    """What the text stands for, if that is an image or a video."""


@dataclass(slots=True)
class Message:
    """What one role said; `role` is None for text outside any role."""

    role: str | None
    segments: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class Fork:
    """Where the run was copied, with what each copy did from there on."""

    children: list[Run]


@dataclass(slots=True, repr=False)
class Run:
    """One run: its messages and forks in order, its variables and how it ended.

    `run["answer"]` is the value of a variable; after a stop or an error, the text that had arrived for it.
    """

    blocks: list[Message | Fork] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    status: Status = "running"
    error: BaseException | None = None
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    """From the first event to the latest."""
    generating: int | None = None
    """The number of the generation whose text is still arriving."""
    tokens: dict[int, list[Token]] = field(default_factory=dict)
    """What each generation took, where log-probabilities were asked for: the tokens of its text, and of markup around it."""
    progress: Progress | None = None
    """How far that generation is."""
    waits_for: str = ""
    """What the engine does while none of its text has come, where that is known."""
    left_out: int = 0
    """How many characters a clipped record lacks."""

    @classmethod
    def from_log(cls, log: EventLog) -> Run:
        """The run as far as `log` and the logs of its forks are written."""
        follower = Follower(log)
        follower.advance()
        return follower.run

    @property
    def segments(self) -> Iterator[Segment]:
        """This run's own segments in order, without those of its forks."""
        return (segment for block in self.blocks if isinstance(block, Message) for segment in block.segments)

    @property
    def text(self) -> str:
        """All text with the template's markup, exactly the state's `text()`; for a fork, from the fork on."""
        return "".join(segment.text for segment in self.segments if segment.origin != "reasoning")

    @property
    def latest(self) -> Segment | None:
        """The run's own last segment."""
        last = self.blocks[-1] if self.blocks else None
        return last.segments[-1] if isinstance(last, Message) and last.segments else None

    @property
    def tree(self) -> Iterator[Run]:
        """The run and all forks below it."""
        yield self
        for block in self.blocks:
            if isinstance(block, Fork):
                for child in block.children:
                    yield from child.tree

    def clipped(self, limit: int) -> Run:
        """The same run with at most `limit` characters of text, forks included."""
        return _clip(self, limit)[0]

    def __getitem__(self, variable: str) -> Any:
        return self.variables[variable]

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.variables.items())
        return f"Run({self.status}: {values})"


class Follower:
    """Reads a log and the logs of its forks into `run`, each event once, as they are written."""

    def __init__(self, log: EventLog, usage: Usage | None = None) -> None:
        self.run = Run(usage=usage or Usage())
        self._log = log
        self._position = 0
        self._children: list[Follower] = []
        self._role: str | None = None
        self._generations = 0

    @property
    def position(self) -> int:
        """How many events of the log itself have been read."""
        return self._position

    @property
    def closed(self) -> bool:
        """Whether the run and all its forks have ended, and all of it has been read."""
        read = self._log.closed and self._position == len(self._log.events)
        return read and all(child.closed for child in self._children)

    def advance(self) -> bool:
        """Take in all that was written since the last call; True if there was anything."""
        known = self._position
        while self._position < len(self._log.events):
            self._take(self._log.events[self._position], self._log.times[self._position])
            self._position += 1
        if self._position > known:
            self.run.seconds = self._log.times[self._position - 1] - self._log.times[0]
        children = [child.advance() for child in self._children]
        return self._position > known or any(children)

    def _take(self, event: Event, time: float) -> None:
        run = self.run
        match event:
            case events.RoleOpened(role):
                run.blocks.append(Message(role))
                self._role = role
            case events.RoleClosed():
                self._role = None
            case events.Text():
                self._take_text(event, time)
            case events.Reasoning(text, variable):
                self._take_reasoning(text, variable, time)
            case events.Tokens(origin="generated", tokens=tokens):
                run.tokens.setdefault(self._generations, []).extend(tokens)
            case events.Tokens() | events.Joined():
                pass
            case events.Usage():
                run.usage.add(event)
            case events.GenerationStarted(variable):
                self._start_generation(variable, time)
                if variable is not None:
                    run.variables[variable] = ""
            case events.PromptRead(_, prompt_tokens, cached_tokens):
                if run.progress:
                    run.progress.prompt_tokens, run.progress.cached_tokens = prompt_tokens, cached_tokens
            case events.VariableDone(variable, value, meta_info):
                if meta_info and "samples" in meta_info:
                    self._take_samples(variable, value)
                if run.progress and run.progress.variable == variable:
                    self._end_generation()
                if variable is not None:
                    run.variables[variable] = value
            case events.Forked(logs):
                followers = [Follower(log, run.usage) for log in logs]
                self._children += followers
                run.blocks.append(Fork([follower.run for follower in followers]))
            case events.Failed(error):
                self._end(status="error", error=error)
            case events.Stopped():
                self._end(status="stopped")
            case events.Finished():
                self._end(status="done")

    def _end(self, status: Status, error: BaseException | None = None) -> None:
        self.run.status, self.run.error = status, error
        self._end_generation()

    def _start_generation(self, variable: str | None, time: float) -> None:
        self._generations += 1
        self.run.generating = self._generations
        self.run.progress = Progress(variable, began=time)

    def _end_generation(self) -> None:
        self.run.generating = self.run.progress = None

    def _take_text(self, event: events.Text, time: float) -> None:
        run = self.run
        if event.media:
            self._message().segments.append(Segment(event.text, event.origin, picture=Picture.of(event.media)))
            return
        if event.origin in ("generated", "chosen", "forced"):
            if run.progress is None:
                self._start_generation(event.variable, time)
            generation = run.generating
            if run.progress:
                run.progress.advance(time, event.completion_tokens)
            if event.variable is not None:
                run.variables[event.variable] = run.variables.get(event.variable, "") + event.text
        else:
            generation = None
        self._add(Segment(event.text, event.origin, event.variable, generation))

    def _take_reasoning(self, text: str, variable: str | None, time: float) -> None:
        name = reasoning_name(variable)
        self.run.variables[name] = self.run.variables.get(name, "") + text
        if self.run.progress:
            self.run.progress.advance(time, None)
        self._add(Segment(text, "reasoning", name, self.run.generating))

    def _add(self, segment: Segment) -> None:
        """Append the segment, or let the last one go on where it is of the same kind."""
        segments = self._message().segments
        last = segments[-1] if segments else None
        ours = (segment.origin, segment.variable, segment.generation)
        if last and not last.picture and (last.origin, last.variable, last.generation) == ours:
            last.text += segment.text
        else:
            segments.append(segment)

    def _take_samples(self, variable: str | None, samples: list[str]) -> None:
        """The request drew several samples, of which the first is the text."""
        segments = self._message().segments
        if not samples[0]:
            segments.append(Segment("", "generated", variable, self.run.generating))
        segments[-1].others = samples[1:]

    def _message(self) -> Message:
        """The message that text belongs to now: the latest, or a new one after a fork or where a role has closed."""
        last = self.run.blocks[-1] if self.run.blocks else None
        if isinstance(last, Message) and last.role == self._role:
            return last
        message = Message(self._role)
        self.run.blocks.append(message)
        return message


def _clip(run: Run, limit: int) -> tuple[Run, int]:
    """The run with at most `limit` characters, and how many of them are still free."""
    blocks: list[Message | Fork] = []
    left_out = 0
    for block in run.blocks:
        if isinstance(block, Fork):
            children = []
            for child in block.children:
                clipped, limit = _clip(child, limit)
                children.append(clipped)
            blocks.append(Fork(children))
            continue
        segments = []
        for segment in block.segments:
            kept = []
            for text in (segment.text, *segment.others):
                kept.append(text[:limit])
                limit -= len(kept[-1])
                left_out += len(text) - len(kept[-1])
            segments.append(replace(segment, text=kept[0], others=kept[1:]))
        blocks.append(Message(block.role, segments))
    return replace(run, blocks=blocks, left_out=left_out), limit


def log_tree(log: EventLog) -> Iterator[EventLog]:
    """The log and the logs of all forks below it."""
    yield log
    for event in log.events:
        if isinstance(event, events.Forked):
            for child in event.children:
                yield from log_tree(child)
