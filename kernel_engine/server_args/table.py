"""The page docs/server-arguments.md, written by `python -m kernel_engine.server_args.table > docs/server-arguments.md`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field
from typing import Any

from . import groups, of_status
from .flag import default_words, flag_of, spelling

INTRODUCTION = """\
# Server arguments

`python -m kernel_engine.launch_server` takes every flag of SGLang's server under its name, so that a command line written for
SGLang works here, or says why not. Those in the first tables have their effect. Others
[change nothing](#flags-that-change-nothing) and are accepted, with a line in the log. A few are [refused](#flags-that-are-refused).
A misspelt flag is refused with the name that was probably meant. A wrong command line ends with a sentence and exit code 2.

This page is made from the flags themselves, as `--help` is.
"""
WITHOUT_EFFECT = """\
## Flags that change nothing

They may have any value. The log says once that the flag was set and changes nothing.
"""
NOT_SUPPORTED = """\
## Flags that are refused

The server does not start with them, unless they have their default.
"""


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    for title, flags in groups():
        yield f"## {title}\n"
        yield from _rows("what it is", flags)
    yield WITHOUT_EFFECT
    yield from _rows("what it is, and why it changes nothing", of_status("noted"))
    yield NOT_SUPPORTED
    yield from _rows("what it is, and what to do instead", of_status("refused"))


def _rows(meaning: str, flags: list[Field[Any]]) -> Iterator[str]:
    yield f"| flag | default | {meaning} |"
    yield "|---|---|---|"
    for each in flags:
        names = ", ".join(f"`{name}`" for name in (spelling(each.name), *flag_of(each).also))
        yield f"| {names} | {default_words(each)} | {flag_of(each).words} |"
    yield ""


if __name__ == "__main__":
    print(page(), end="")
