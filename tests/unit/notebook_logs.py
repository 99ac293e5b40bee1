"""Event logs of made-up runs, as the executor would write them."""

from __future__ import annotations

from sgl_jupyter.lang.events import (
    EventLog,
    Failed,
    Finished,
    Forked,
    GenerationStarted,
    Origin,
    RoleClosed,
    RoleOpened,
    Stopped,
    Text,
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
        value = "".join(text for _, text in pieces)
        log.append(VariableDone(name, value, {"prompt_tokens": 10, "completion_tokens": 2, "cached_tokens": 4}))


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
    log.append(VariableDone("x", list(texts), {"completion_tokens": 4, "samples": [{}] * len(texts)}))
    return log


def cut_off(last: Stopped | Failed) -> EventLog:
    """A run that ended while it generated."""
    log = EventLog()
    open_message(log, "assistant")
    start_generation(log, "story", ("generated", "Once upon"))
    log.append(last)
    return log
