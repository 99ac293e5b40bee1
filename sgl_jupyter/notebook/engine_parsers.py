"""The command lines of `%sgl`: what each command is called, takes, and says of itself."""

from __future__ import annotations

import argparse
import re

from sgl_jupyter.notebook.arguments import MagicParser

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
ON_THE_LAST = ("wait", "status", "logs", "stop", "terminate")
"""Commands on the engine that was used last, or on a named one."""
ON_A_NAMED = ("use", "kill")


def duration(word: str) -> float:
    """Seconds, from a number with or without a unit: 90, 90s, 10m, 2h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", word)
    if not found:
        raise argparse.ArgumentTypeError(f"{word!r} is no time such as 90s, 10m or 2h")
    return float(found[1]) * UNITS[found[2]]


def engine_parsers() -> dict[str, MagicParser]:
    """By command, in the order in which help lists them."""
    parsers = {
        "launch": _launch(),
        "connect": _connect(),
        "use": MagicParser("%sgl use", "Run programs on an engine that is there, from now on."),
        "wait": MagicParser("%sgl wait", "Wait until an engine is ready."),
        "status": MagicParser("%sgl status", "Tell about one engine."),
        "ls": MagicParser("%sgl ls", "List all engines on this machine, those of other notebooks too."),
        "logs": MagicParser("%sgl logs", "Print the last lines of an engine's log."),
        "stop": MagicParser("%sgl stop", "Abort all requests on an engine, those of other notebooks too."),
        "terminate": MagicParser("%sgl terminate", "End an engine."),
        "kill": MagicParser("%sgl kill", "End an engine that does not end otherwise, at once."),
        "models": MagicParser("%sgl models", "List the models that are here, and whether they fit into memory."),
        "config": MagicParser("%sgl config", "Print the settings and where they come from."),
        "version": MagicParser("%sgl version", "Print the version of sgl-jupyter."),
    }
    parsers["wait"].add_argument("--timeout", type=float, metavar="SECONDS", help="give up after so long")
    parsers["logs"].add_argument("-n", "--lines", type=int, default=50, help="how many (50)")
    for name in ON_THE_LAST:
        parsers[name].add_argument("name", nargs="?", metavar="NAME", help="the engine, if not the one used last")
    for name in ON_A_NAMED:
        parsers[name].add_argument("name", metavar="NAME", help="the engine")
    return parsers


def _launch() -> MagicParser:
    launch = MagicParser("%sgl launch", "Start an engine on a model, and run programs on it from now on.")
    launch.usage = (
        "%(prog)s MODEL [--name NAME] [--engine KIND] [--python PATH] [--tp N] [--share] [--keep TIME] "
        "[--wait | --no-wait] [-- ENGINE_ARGUMENTS]"
    )
    launch.add_argument("model", metavar="MODEL", help="a bundled name such as tiny-chat, a folder, or a hub id")
    launch.add_argument("--name", help="what to call the engine, if not as its model")
    launch.add_argument(
        "--engine", choices=["kernel", "sglang", "vllm"], default="kernel", help="which server to start (kernel)"
    )
    launch.add_argument(
        "--python", metavar="PATH", help="the interpreter of the environment that has the server, if not the notebook's"
    )
    launch.add_argument("--tp", type=int, metavar="N", help="spread the model over N GPUs; for sglang and vllm")
    launch.add_argument("--share", action="store_true", help="let other notebooks use it, by its name")
    launch.add_argument(
        "--keep", type=duration, metavar="TIME", help="share it, and keep it so long after its last user: 90s, 10m, 2h"
    )
    launch.add_argument("--wait", action=argparse.BooleanOptionalAction, default=True, help="wait until it is ready")
    return launch


def _connect() -> MagicParser:
    connect = MagicParser("%sgl connect", "Run programs on an engine that runs elsewhere, from now on.")
    connect.add_argument("url", metavar="URL", help="where it answers, such as http://gpu-box:30000")
    connect.add_argument("--name", help="what to call the engine, if not as its model")
    connect.add_argument("--model", help="for a server that has several, the one to use")
    connect.add_argument(
        "--api-key-env", metavar="VARIABLE", help="the environment variable that holds its API key, if it asks for one"
    )
    return connect
