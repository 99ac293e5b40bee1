"""The commands of `%sgl`: engines launched, listed, watched and ended from a notebook.

What is printed is the same in every run: ports, ids and times are left to `%sgl status` and `%sgl ls`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from sgl_jupyter.lang.config import global_config, set_default_backend
from sgl_jupyter.notebook.arguments import did_you_mean
from sgl_jupyter.notebook.engine_parsers import engine_parsers
from sgl_jupyter.notebook.engine_tables import engine_table, model_table, settings_table

if TYPE_CHECKING:
    from traitlets.config import Configurable

    from sgl_jupyter.lifecycle import EngineDiedError, EngineHandle, RemoteEngine

DEATH_PATIENCE = 0.5
"""Seconds after a connection broke in which an engine's end is told."""
NO_ENGINE = "there is no engine to run on. Launch one first:  %sgl launch tiny-chat"


class EngineCommands:
    """The engines that one shell uses, and the commands on them.

    Without a name a command means the engine that was used last.

    Args:
        magics: whose settings `%sgl config` shows.
    """

    def __init__(self, magics: Configurable) -> None:
        self._magics = magics
        self._used: dict[str, EngineHandle | RemoteEngine] = {}
        """By name, the latest last."""
        self._launched_with: dict[str, list[str]] = {}
        """By name, the words of the line that launched it."""
        self.parsers = engine_parsers()

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

        return list(dict.fromkeys([*self._used, *(engine.name for engine in engines())]))

    def backend(self, name: str | None) -> Any:
        """Where a cell runs: on the engine `name`, or on the default backend.

        Raises:
            UsageError: there is none. The message says what to type.
            EngineDiedError: it is an engine that has died.
        """
        from sgl_jupyter.lifecycle import EngineHandle, engines

        backend = self._find(name) if name else global_config.default_backend
        if backend is None:
            shared = "".join(f"  or use one that is shared:  %sgl use {e.name}" for e in engines() if e.is_shared)
            raise UsageError(NO_ENGINE + shared)
        if isinstance(backend, EngineHandle) and not backend.is_running():
            raise backend.death()
        return backend

    def death_of(self, place: Any) -> EngineDiedError | None:
        """How the engine has ended that did not answer, if it is one of this machine's and has ended."""
        from sgl_jupyter.lifecycle import EngineHandle

        if not isinstance(place, EngineHandle):
            return None
        place.watch(DEATH_PATIENCE)
        return None if place.is_running() else place.death()

    def _launch(self, arguments: argparse.Namespace) -> None:
        from sgl_jupyter.lifecycle import launch

        name = arguments.name or arguments.model.rstrip("/").rsplit("/", 1)[-1]
        flags: dict[str, Any] = {"tp_size": arguments.tp} if arguments.tp else {}
        flags |= {each: getattr(arguments, each) for each in ("engine", "python", "share", "keep")}
        words = [arguments.model, *map(str, flags.values()), *arguments.engine_args]
        engine = self._running(name, words)
        if engine is None:
            with _in_one_sentence(ImportError, OSError, RuntimeError, ValueError):
                engine = launch(arguments.model, name=name, engine_args=arguments.engine_args, **flags)
        self._launched_with[name] = words
        self._set_default(engine)
        if arguments.wait:
            engine.wait()
        loading = "" if arguments.wait else ", which is loading; the first run waits for it"
        print(f"Programs now run on engine {name!r}{loading}. {_end_of(engine)}")

    def _running(self, name: str, words: list[str]) -> EngineHandle | None:
        """The engine `name` if this shell launched it and it runs, as it does when a cell that launches it is run again."""
        from sgl_jupyter.lifecycle import EngineHandle

        engine = self._used.get(name)
        if name not in self._launched_with or not isinstance(engine, EngineHandle) or not engine.is_running():
            return None
        if self._launched_with[name] != words:
            raise UsageError(
                f"engine {name!r} is running already, launched with other arguments. End it first with "
                f"%sgl terminate {name}, or give the new one another name with --name"
            )
        return engine

    def _connect(self, arguments: argparse.Namespace) -> None:
        from sgl_jupyter.lifecycle import connect

        variable = arguments.api_key_env
        if variable and variable not in os.environ:
            raise UsageError(f"--api-key-env: the kernel's environment has no {variable}; %env shows what it has")
        api_key = os.environ[variable] if variable else None
        with _in_one_sentence(RuntimeError, ValueError):
            engine = connect(arguments.url, api_key, name=arguments.name, model=arguments.model)
        if engine.name in self._launched_with:
            raise UsageError(f"engine {engine.name!r} was launched here: give this one another name with --name")
        self._set_default(engine)
        print(f"Programs now run on engine {engine.name!r}. {_end_of(engine)}")

    def _use(self, arguments: argparse.Namespace) -> None:
        from sgl_jupyter.lifecycle import attach

        engine = self._used.get(arguments.name)
        if engine is None:
            self._find(arguments.name)
            engine = attach(arguments.name)
        self._set_default(engine)
        print(f"Programs now run on engine {engine.name!r}. {_end_of(engine)}")

    def _set_default(self, engine: EngineHandle | RemoteEngine) -> None:
        self._used.pop(engine.name, None)
        self._used[engine.name] = engine
        set_default_backend(engine)

    def _wait(self, arguments: argparse.Namespace) -> None:
        engine = self._find(arguments.name)
        engine.wait(arguments.timeout)
        print(f"Engine {engine.name!r} is ready.")

    def _status(self, arguments: argparse.Namespace) -> None:
        from sgl_jupyter.lifecycle import EngineHandle

        engine = self._find(arguments.name)
        lines = {"engine": engine.name, "model": engine.model, "state": engine.state, "url": engine.url or "none yet"}
        if isinstance(engine, EngineHandle):
            lines |= {"pid": engine.pid, "log": engine.log_path}
        print("\n".join(f"{label:<8}{value}" for label, value in lines.items()))

    def _ls(self, arguments: argparse.Namespace) -> None:
        from sgl_jupyter.lifecycle import RemoteEngine, engines

        remote = [engine for engine in self._used.values() if isinstance(engine, RemoteEngine)]
        print(engine_table([*engines(), *remote]) or "No engine is running.")

    def _logs(self, arguments: argparse.Namespace) -> None:
        with _in_one_sentence(RuntimeError):
            print(self._find(arguments.name).logs(arguments.lines))

    def _stop(self, arguments: argparse.Namespace) -> None:
        engine = self._find(arguments.name)
        with _in_one_sentence(RuntimeError):
            engine.stop()
        print(f"All requests on engine {engine.name!r} were aborted.")

    def _terminate(self, arguments: argparse.Namespace) -> None:
        engine = self._find(arguments.name)
        with _in_one_sentence(RuntimeError):
            engine.terminate()
        self._forget(engine)

    def _kill(self, arguments: argparse.Namespace) -> None:
        engine = self._find(arguments.name)
        with _in_one_sentence(RuntimeError):
            engine.kill()
        self._forget(engine)

    def _forget(self, engine: EngineHandle | RemoteEngine) -> None:
        self._used.pop(engine.name, None)
        self._launched_with.pop(engine.name, None)
        if getattr(global_config.default_backend, "name", None) == engine.name:
            set_default_backend(None)
        print(f"Engine {engine.name!r} has ended.")

    def _models(self, arguments: argparse.Namespace) -> None:
        from sgl_jupyter.lifecycle import available_models

        print(model_table(available_models()) or "No model is here. Give launch a hub id.")

    def _config(self, arguments: argparse.Namespace) -> None:
        print(settings_table(self._magics))

    def _version(self, arguments: argparse.Namespace) -> None:
        print(f"sgl-jupyter {version('sgl-jupyter')}")

    def _find(self, name: str | None) -> EngineHandle | RemoteEngine:
        """The engine `name`, used here or launched in another notebook; without a name the one used here last."""
        from sgl_jupyter.lifecycle import engines

        if name is None:
            if not self._used:
                raise UsageError("no engine was launched here. Launch one:  %sgl launch tiny-chat")
            return next(reversed(self._used.values()))
        if name in self._used:
            return self._used[name]
        others = {engine.name: engine for engine in engines()}
        if name not in others:
            raise UsageError(f"there is no engine {name!r}.{did_you_mean(name, [*self._used, *others])} See %sgl ls.")
        return others[name]


def _end_of(engine: EngineHandle | RemoteEngine) -> str:
    """When the engine will end, in a sentence."""
    from sgl_jupyter.lifecycle import RemoteEngine

    if isinstance(engine, RemoteEngine):
        return "It runs elsewhere, and goes on when this kernel ends."
    if engine.is_shared:
        return f"It ends with its last notebook, or with  %sgl terminate {engine.name}"
    if engine.is_from_here:
        return f"It ends with this kernel, or with  %sgl terminate {engine.name}"
    return "It ends with the notebook that launched it."


@contextmanager
def _in_one_sentence(*errors: type[Exception]) -> Iterator[None]:
    """What the user can mend is told without a traceback."""
    try:
        yield
    except errors as error:
        raise UsageError(str(error)) from None
