"""Tab completion of `%sgl` and `%%sgl` lines and of variables in `s["`. It runs in the kernel, so every front end has it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from sgl_jupyter.lang.state import ProgramState
from sgl_jupyter.lifecycle.models import bundled_names, downloaded_names
from sgl_jupyter.notebook.arguments import MagicParser
from sgl_jupyter.notebook.engine_parsers import ON_A_NAMED, ON_THE_LAST
from sgl_jupyter.notebook.engines import EngineCommands
from sgl_jupyter.notebook.run import Run

_COMMAND_LINE = re.compile(r"\s*%sgl\s+(.*)")
_CELL_LINE = re.compile(r"%%sgl\s+(.*)")
_SUBSCRIPT = re.compile(r"""(\w+)\[["'][^"'\]]*$""")


class Completer:
    """What can stand at the cursor, where the cursor is in our part of a cell."""

    def __init__(self, shell: Any, cell_parser: MagicParser, engines: EngineCommands) -> None:
        self._shell = shell
        self._cell_options = cell_parser.options
        self._cell_choices = cell_parser.choices
        self._engines = engines

    @context_matcher()
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """IPython's matcher. Where it finds anything, the names of files and Python objects are left out."""
        candidates = self._candidates(context.text_until_cursor, is_first_line=context.cursor_line == 0)
        found = [SimpleCompletion(word, type="sgl") for word in candidates if word.startswith(context.token)]
        return {"completions": found, "suppress": bool(found)}

    def _candidates(self, line: str, is_first_line: bool) -> Iterable[str]:
        if command_line := _COMMAND_LINE.fullmatch(line):
            return self._in_command(*_words(command_line[1]))
        if is_first_line and (cell_line := _CELL_LINE.fullmatch(line)):
            return self._in_cell_line(*_words(cell_line[1]))
        if subscript := _SUBSCRIPT.search(line):
            return _variables(self._shell.user_ns.get(subscript[1]))
        return []

    def _in_command(self, before: list[str], word: str) -> Iterable[str]:
        if not before:
            return self._engines.parsers
        command, *arguments = before
        if command not in self._engines.parsers or "--" in arguments:
            return []
        if word.startswith("-"):
            return self._engines.parsers[command].options
        names = list(self._arguments_of(command))
        return names if set(names).isdisjoint(arguments) else []

    def _arguments_of(self, command: str) -> Iterable[str]:
        if command == "launch":
            return [*bundled_names(), *downloaded_names()]
        return self._engines.names() if command in (*ON_THE_LAST, *ON_A_NAMED) else []

    def _in_cell_line(self, before: list[str], word: str) -> Iterable[str]:
        option = before[-1] if before else ""
        if option == "--engine":
            return self._engines.names()
        if option in self._cell_choices:
            return self._cell_choices[option]
        return self._cell_options if word.startswith("-") else []


def _words(text: str) -> tuple[list[str], str]:
    """The words before the one at the cursor, and what there is of that one."""
    *before, word = text.split() if text and not text[-1].isspace() else [*text.split(), ""]
    return before, word


def _variables(value: Any) -> Iterable[str]:
    if isinstance(value, ProgramState):
        value = Run.from_log(value.log)
    return value.variables if isinstance(value, Run) else []
