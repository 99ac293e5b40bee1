"""The command line and its help, made from the fields of `ServerArgs`."""

from __future__ import annotations

import argparse
import difflib
from dataclasses import Field
from types import NoneType
from typing import Any, get_args, get_type_hints

from ..errors import LoadError
from . import ServerArgs, groups, of_status
from .flag import default_words, flag_of, spelling

DESCRIPTION = "Serve a language model over SGLang's and OpenAI's HTTP protocols. The flags are SGLang's, all of them."
WITHOUT_EFFECT = "Accepted, with a line in the log, though no value changes anything here"
NOT_SUPPORTED = "Refused at start, unless they have their default"


def parse(arguments: list[str]) -> ServerArgs:
    """Read a command line; exits with code 2 and a sentence if it is wrong."""
    parser = _parser()
    values, rest = parser.parse_known_args(arguments)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}{_suggestion(parser, rest[0])}")
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(values).items()}
    try:
        return ServerArgs(**given)
    except LoadError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kernel_engine.launch_server",
        usage="%(prog)s --model-path MODEL [--port PORT] [flags]",
        description=DESCRIPTION,
        allow_abbrev=False,
    )
    types = get_type_hints(ServerArgs)
    for title, flags in (*groups(), (WITHOUT_EFFECT, of_status("noted")), (NOT_SUPPORTED, of_status("refused"))):
        group = parser.add_argument_group(title)
        for each in flags:
            options = _reading(types[each.name]) | {"dest": each.name, "help": _help(each), "default": each.default}
            options["required"] = each.name == "model_path"
            group.add_argument(spelling(each.name), *flag_of(each).also, **options)
    return parser


def _reading(annotation: Any) -> dict[str, Any]:
    """How argparse reads a value of a type: bool, or str, int or float, or a list of one of them; with or without None."""
    kind = next((each for each in get_args(annotation) if each is not NoneType), annotation)
    if kind is bool:
        return {"action": "store_true"}
    if items := get_args(kind):
        return {"type": items[0], "nargs": "+", "metavar": items[0].__name__.upper()}
    return {"type": kind, "metavar": kind.__name__.upper()}


def _help(each: Field[Any]) -> str:
    flag, default = flag_of(each), default_words(each)
    words = flag.words + (f" (default: {default})" if default and flag.status == "effective" else "")
    return words.replace("%", "%%")


def _suggestion(parser: argparse.ArgumentParser, word: str) -> str:
    known = [option for action in parser._actions for option in action.option_strings]
    close = difflib.get_close_matches(word.partition("=")[0].replace("_", "-"), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
