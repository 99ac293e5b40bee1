"""Event logs of made-up runs, as the executor would write them."""

from __future__ import annotations

import math

from sgl_jupyter.backends.base import Image, Video
from sgl_jupyter.lang.events import (
    EventLog,
    Failed,
    Finished,
    Forked,
    GenerationStarted,
    Origin,
    Reasoning,
    RoleClosed,
    RoleOpened,
    Stopped,
    Text,
    Token,
    Tokens,
    Usage,
    VariableDone,
)

Generation = tuple[str | None, list[tuple[Origin, str]]]


def add_message(log: EventLog, role: str, *parts: str | Generation) -> None:
    """A whole message: text of the program, or generations as (variable, [(origin, text), ...])."""
    open_message(log, role, *parts)
    log.append(Text("<|im_end|>\n", "template"))
    log.append(RoleClosed(role))


def open_message(log: EventLog, role: str, *parts: str | Generation) -> None:
    log.append(RoleOpened(role))
    log.append(Text(f"<|im_start|>{role}\n", "template"))
    for part in parts:
        if isinstance(part, str):
            log.append(Text(part, "prompt"))
            continue
        name, pieces = part
        start_generation(log, name, *pieces)
        finish_generation(log, name, "".join(text for _, text in pieces))


def finish_generation(log: EventLog, name: str | None, value: str) -> None:
    meta_info = {"prompt_tokens": 10, "completion_tokens": 2, "cached_tokens": 4}
    log.append(Usage(name, prompt_tokens=10, cached_tokens=4, completion_tokens=2, seconds=0.5))
    log.append(VariableDone(name, value, meta_info))


def start_generation(log: EventLog, name: str | None, *pieces: tuple[Origin, str]) -> None:
    """A generation whose end has not come."""
    log.append(GenerationStarted(name))
    for origin, text in pieces:
        log.append(Text(text, origin, name))


def chat() -> EventLog:
    log = EventLog()
    add_message(log, "user", "What is 2 * 2?")
    tool: Generation = ("tool", [("chosen", "calculator")])
    add_message(log, "assistant", "I need a ", tool, ".\n", ("expression", [("generated", "2 "), ("generated", "* 2")]))
    log.append(Finished())
    return log


def constrained() -> EventLog:
    log = EventLog()
    pieces: list[tuple[Origin, str]] = [("forced", '{"name": "'), ("generated", "Harry"), ("forced", '"}')]
    add_message(log, "assistant", ("person", pieces))
    log.append(Finished())
    return log


def forks() -> EventLog:
    log = EventLog()
    add_message(log, "user", "Two tips.")
    children = EventLog(), EventLog()
    log.append(Forked(children))
    for number, child in enumerate(children, start=1):
        add_message(child, "assistant", (f"tip{number}", [("generated", f"Tip {number}.")]))
        child.append(Finished())
    add_message(log, "assistant", ("summary", [("generated", "Both.")]))
    log.append(Finished())
    return log


def samples(*texts: str) -> EventLog:
    """One request that drew several samples of `x`, and is at it no more."""
    log = EventLog()
    open_message(log, "assistant")
    start_generation(log, "x")
    if texts[0]:
        log.append(Text(texts[0], "generated", "x"))
    log.append(Usage("x", prompt_tokens=0, cached_tokens=0, completion_tokens=4, seconds=0.5))
    log.append(VariableDone("x", list(texts), {"completion_tokens": 4, "samples": [{}] * len(texts)}))
    return log


def reasoned() -> EventLog:
    """A generation that thinks before it answers, as the executor tells of it."""
    log = EventLog()
    open_message(log, "assistant", "So: ")
    start_generation(log, "x")
    for thought in ("Let me ", "think.\n"):
        log.append(Reasoning(thought, "x"))
    log.append(Text("Paris", "generated", "x"))
    log.append(VariableDone("x_reasoning_content", "Let me think.\n", None))
    finish_generation(log, "x", "Paris")
    log.append(Text(".", "prompt"))
    log.append(Finished())
    return log


def showing(media: Image | Video) -> EventLog:
    """A question about an image."""
    log = EventLog()
    open_message(log, "user", "See ")
    log.append(Text("<image>", "template", media=media))
    log.append(Text(" and say.", "prompt"))
    log.append(Finished())
    return log


def weighed(*tokens: tuple[str, float], text: str) -> EventLog:
    """A generation of `text` with the probabilities of its tokens."""
    log = EventLog()
    open_message(log, "assistant")
    start_generation(log, "x", ("generated", text))
    found = (Token(number, token, math.log(probability)) for number, (token, probability) in enumerate(tokens))
    log.append(Tokens("x", "generated", tuple(found)))
    finish_generation(log, "x", text)
    log.append(Finished())
    return log


def cut_off(last: Stopped | Failed) -> EventLog:
    """A run that ended while it generated."""
    log = EventLog()
    open_message(log, "assistant")
    start_generation(log, "story", ("generated", "Once upon"))
    log.append(last)
    return log
