"""Command lines of magics: argparse that answers in a notebook's way, with a suggestion for what was mistyped."""

from __future__ import annotations

import argparse
import difflib
import keyword
import shlex
from typing import Any, NoReturn

from IPython.core.error import UsageError


class HelpRequested(Exception):
    """The user asked for help; the message is the help text."""


def split(line: str) -> list[str]:
    """The words of a magic's line, as a shell would split them, without a trailing `# comment`."""
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"cannot read {line!r}: {error}") from None


def variable_name(word: str) -> str:
    """`word`, if a Python variable can have this name."""
    if not word.isidentifier() or keyword.iskeyword(word):
        raise argparse.ArgumentTypeError(f"{word!r} is not a Python variable name")
    return word


def count(word: str) -> int:
    """`word`, if it is a number from 1 on."""
    if not word.isascii() or not word.isdigit() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 1 on")
    return int(word)


def did_you_mean(word: str, known: list[str]) -> str:
    """A question about the likeliest of the known words, or nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]}?" if close else ""


class MagicParser(argparse.ArgumentParser):
    """Raises UsageError where argparse would end the process, and HelpRequested where it would print."""

    def __init__(self, name: str, description: str, epilog: str | None = None) -> None:
        self.options: list[str] = []
        self.choices: dict[str, list[str]] = {}
        """The values of those options that have a few to choose from."""
        super().__init__(
            prog=name,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:  # pyright: ignore[reportIncompatibleMethodOverride]
        action = super().add_argument(*names, **settings)
        self.options += action.option_strings
        if action.choices:
            self.choices |= {option: list(map(str, action.choices)) for option in action.option_strings}
        return action

    def parse(self, words: list[str]) -> argparse.Namespace:
        """The arguments in `words`.

        Raises:
            UsageError: they are wrong. The message says which and what may have been meant.
            HelpRequested: `-h` is among them.
        """
        for word in words:
            option = word.split("=")[0]
            if option.startswith("--") and option not in self.options:
                self.error(f"unknown option {option}.{did_you_mean(option, self.options)}")
        return self.parse_args(words)

    def print_help(self, file: Any = None) -> NoReturn:
        raise HelpRequested(self.format_help())

    def error(self, message: str) -> NoReturn:
        end = "" if message.endswith((".", "?")) else "."
        raise UsageError(f"{self.prog}: {message}{end} See {self.prog} -h.")
