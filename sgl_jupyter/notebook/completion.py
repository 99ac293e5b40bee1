"""Tab completion of `%sgl` and `%%sgl` lines and of variables in `s["`. It runs in the kernel, so every front end has it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from sgl_jupyter.lang.state import ProgramState
from sgl_jupyter.notebook.arguments import MagicParser
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
        names = [*bundled_models(), *cached_models()] if command == "launch" else self._engines.names()
        return names if set(names).isdisjoint(arguments) else []

    def _in_cell_line(self, before: list[str], word: str) -> Iterable[str]:
        if before and before[-1] == "--engine":
            return self._engines.names()
        return self._cell_options if word.startswith("-") else []


def bundled_models() -> list[str]:
    """The models that come with the engine, found without importing it."""
    engine = find_spec("kernel_engine")
    folders = (engine.submodule_search_locations or []) if engine else []
    return sorted(config.parent.name for folder in folders for config in Path(folder).glob("bundled/*/config.json"))


def cached_models() -> list[str]:
    """The hub ids of the models that Hugging Face's tools have downloaded."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    return sorted(folder.name.removeprefix("models--").replace("--", "/") for folder in cache.glob("models--*"))


def _words(text: str) -> tuple[list[str], str]:
    """The words before the one at the cursor, and what there is of that one."""
    *before, word = text.split() if text and not text[-1].isspace() else [*text.split(), ""]
    return before, word


def _variables(value: Any) -> Iterable[str]:
    if isinstance(value, ProgramState):
        value = Run.from_log(value.log)
    return value.variables if isinstance(value, Run) else []
