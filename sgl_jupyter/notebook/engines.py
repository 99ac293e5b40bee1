"""The commands of `%sgl`: engines launched, listed, watched and ended from a notebook.

What is printed is the same in every run: ports, ids and times are left to `%sgl status` and `%sgl ls`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from sgl_jupyter.lang.config import global_config, set_default_backend
from sgl_jupyter.notebook.arguments import MagicParser, did_you_mean
from sgl_jupyter.notebook.text import table

if TYPE_CHECKING:
    from sgl_jupyter.lifecycle import EngineHandle

NO_ENGINE = "there is no engine to run on. Launch one first:  %sgl launch tiny-chat"


class EngineCommands:
    """The engines that one shell launched, and the commands on them.

    Without a name a command means the engine that was launched last.
    """

    def __init__(self) -> None:
        self._launched: dict[str, tuple[EngineHandle, list[str]]] = {}
        """By name: the engine and the words it was launched with. The latest is the last."""
        self.parsers = _parsers()

    def run(self, words: list[str]) -> None:
        """Run one `%sgl` line.

        Raises:
            UsageError: there is no such command, or its arguments are wrong.
            HelpRequested: the user asked for help on the command.
        """
        command, *rest = words
        if command not in self.parsers:
            raise UsageError(
                f"%sgl has no command {command!r}.{did_you_mean(command, list(self.parsers))} See %sgl help."
            )
        engine_args: list[str] = []
        if command == "launch" and "--" in rest:
            dashes = rest.index("--")
            rest, engine_args = rest[:dashes], rest[dashes + 1 :]
        arguments = self.parsers[command].parse(rest)
        arguments.engine_args = engine_args
        action: Callable[[argparse.Namespace], None] = getattr(self, f"_{command}")
        action(arguments)

    def help(self) -> str:
        """All commands, each with a line about it."""
        lines = [f"  %sgl {name:<11}{parser.description}" for name, parser in self.parsers.items()]
        return "\n".join(["engines:", *lines, "  %sgl COMMAND -h tells more."])

    def names(self) -> list[str]:
        """Of all engines that a command can mean, those of other notebooks too."""
        from sgl_jupyter.lifecycle import engines

        return list(dict.fromkeys([*self._launched, *(engine.name for engine in engines())]))

    def backend(self, name: str | None) -> Any:
        """Where a cell runs: on the engine `name`, or on the default backend.

        Raises:
            UsageError: there is none. The message says what to type.
            EngineDiedError: it is an engine that has died.
        """
        from sgl_jupyter.lifecycle import EngineHandle

        backend = self._find(name) if name else global_config.default_backend
        if backend is None:
            raise UsageError(NO_ENGINE)
        if isinstance(backend, EngineHandle) and not backend.is_running():
            raise backend.death()
        return backend

    def _launch(self, arguments: argparse.Namespace) -> None:
        from sgl_jupyter.lifecycle import launch

        words = [arguments.model, *arguments.engine_args]
        name = arguments.name or arguments.model.rstrip("/").rsplit("/", 1)[-1]
        engine = self._running(name, words)
        if engine is None:
            engine = launch(arguments.model, name=name, engine_args=arguments.engine_args)
        self._launched.pop(name, None)
        self._launched[name] = engine, words
        set_default_backend(engine)
        if arguments.wait:
            engine.wait()
        loading = "" if arguments.wait else ", which is loading; the first run waits for it"
        print(f"Programs now run on engine {name!r}{loading}. It ends with this kernel, or with  %sgl terminate {name}")

    def _running(self, name: str, words: list[str]) -> EngineHandle | None:
        """The engine `name` if it runs already, as it does when a cell that launches it is run again."""
        engine, launched_with = self._launched.get(name, (None, None))
        if engine is None or not engine.is_running():
            return None
        if launched_with != words:
            raise UsageError(
                f"engine {name!r} is running already, launched as {' '.join(launched_with or [])!r}. End it first with "
                f"%sgl terminate {name}, or give the new one another name with --name"
            )
        return engine

    def _wait(self, arguments: argparse.Namespace) -> None:
        engine = self._find(arguments.name)
        engine.wait(arguments.timeout)
        print(f"Engine {engine.name!r} is ready.")

    def _status(self, arguments: argparse.Namespace) -> None:
        engine = self._find(arguments.name)
        lines = {"engine": engine.name, "model": engine.model, "state": engine.state, "url": engine.url or "none yet"}
        lines |= {"pid": engine.pid, "log": engine.log_path}
        print("\n".join(f"{label:<8}{value}" for label, value in lines.items()))

    def _ls(self, arguments: argparse.Namespace) -> None:
        from sgl_jupyter.lifecycle import engines

        rows = [(e.name, e.model, e.state, str(e.pid), e.owner or "") for e in engines()]
        print(table(["engine", "model", "state", "pid", "notebook"], rows) if rows else "No engine is running.")

    def _logs(self, arguments: argparse.Namespace) -> None:
        print(self._find(arguments.name).logs(arguments.lines))

    def _terminate(self, arguments: argparse.Namespace) -> None:
        engine = self._find(arguments.name)
        engine.terminate()
        self._launched.pop(engine.name, None)
        if global_config.default_backend is engine:
            set_default_backend(None)
        print(f"Engine {engine.name!r} has ended.")

    def _version(self, arguments: argparse.Namespace) -> None:
        print(f"sgl-jupyter {version('sgl-jupyter')}")

    def _find(self, name: str | None) -> EngineHandle:
        """The engine `name`, launched here or in another notebook; without a name the one launched here last."""
        from sgl_jupyter.lifecycle import engines

        if name is None:
            if not self._launched:
                raise UsageError("no engine was launched here. Launch one:  %sgl launch tiny-chat")
            return next(reversed(self._launched.values()))[0]
        if name in self._launched:
            return self._launched[name][0]
        others = {engine.name: engine for engine in engines()}
        if name not in others:
            raise UsageError(
                f"there is no engine {name!r}.{did_you_mean(name, [*self._launched, *others])} See %sgl ls."
            )
        return others[name]


def _parsers() -> dict[str, MagicParser]:
    launch = MagicParser("%sgl launch", "Start an engine on a model, and run programs on it from now on.")
    launch.usage = "%(prog)s MODEL [--name NAME] [--wait | --no-wait] [-- ENGINE_ARGUMENTS]"
    launch.add_argument("model", metavar="MODEL", help="a bundled name such as tiny-chat, a folder, or a hub id")
    launch.add_argument("--name", help="what to call the engine, if not as its model")
    launch.add_argument("--wait", action=argparse.BooleanOptionalAction, default=True, help="wait until it is ready")
    wait = MagicParser("%sgl wait", "Wait until an engine is ready.")
    wait.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after so long")
    logs = MagicParser("%sgl logs", "Print the last lines of an engine's log.")
    logs.add_argument("-n", "--lines", type=int, default=50, help="how many (50)")
    parsers = {
        "launch": launch,
        "wait": wait,
        "status": MagicParser("%sgl status", "Tell about one engine."),
        "ls": MagicParser("%sgl ls", "List all engines on this machine, those of other notebooks too."),
        "logs": logs,
        "terminate": MagicParser("%sgl terminate", "End an engine."),
        "version": MagicParser("%sgl version", "Print the version of sgl-jupyter."),
    }
    for name in ("wait", "status", "logs", "terminate"):
        parsers[name].add_argument("name", nargs="?", metavar="NAME", help="the engine, if not the one launched last")
    return parsers
