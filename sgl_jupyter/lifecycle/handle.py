"""`launch` starts a kernel_engine on a model and returns its handle; `engines` lists those that run."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from . import registry
from .link import Link
from .logs import last_line
from .process import SupervisedProcess, new_entry
from .waiting import wait_until

if TYPE_CHECKING:
    from ..backends.runtime_endpoint import RuntimeEndpoint

SET_BY_LAUNCH = {"model_path", "api_key_file", "ready_file"}


class EngineHandle(SupervisedProcess):
    """An engine: loading, ready, or dead. As a context manager it is ready inside and gone afterwards."""

    def wait(self, timeout: float | None = None) -> Self:
        """Return this handle once the engine is ready; meanwhile show the last line of its log.

        Raises EngineDiedError as soon as the engine is dead, TimeoutError after `timeout` seconds, and WaitInterrupted (a
        KeyboardInterrupt) when the user interrupts, after which the engine goes on loading.
        """
        wait_until(
            lambda: self.state == "ready",
            what=repr(self.name),
            process=self,
            timeout=timeout,
            pause=lambda left: self.watch(min(left, 0.2)),
            news=lambda: last_line(self.log_path),
        )
        return self

    @cached_property
    def endpoint(self) -> RuntimeEndpoint:
        """The backend that runs programs on this engine. The first use waits until the engine is ready."""
        from ..backends.runtime_endpoint import RuntimeEndpoint

        return RuntimeEndpoint(str(self.wait().url), api_key=self.api_key)

    def __enter__(self) -> Self:
        try:
            return self.wait()
        except BaseException:
            self.terminate()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.terminate()


def launch(
    model: str | os.PathLike[str],
    *,
    name: str | None = None,
    api_key: str | None = None,
    engine_args: Sequence[str] = (),
    **flags: Any,
) -> EngineHandle:
    """Start an engine on `model` (a bundled name, a folder, a hub id) and return at once, while it loads.

    It listens on loopback, asks for a fresh bearer token, and ends with this process. `flags` are the engine's, with SGLang's
    names: `max_total_tokens=8192` becomes `--max-total-tokens 8192`, True a bare flag, False and None nothing, a list several
    values, a dict JSON. `engine_args` go to its command line as they are.
    """
    if clashing := SET_BY_LAUNCH & flags.keys():
        raise TypeError(f"launch() sets {', '.join(sorted(clashing))} itself")
    model = os.fspath(model)
    entry = new_entry(name or Path(model).name, model, api_key=api_key or secrets.token_urlsafe(32))
    own = {"model_path": model, "host": "127.0.0.1", "port": 0}
    own |= {"api_key_file": entry.api_key_file, "ready_file": entry.ready_file}
    argv = [sys.executable, "-P", "-m", "kernel_engine.launch_server", *_command_line(own | flags), *engine_args]
    return EngineHandle.start(entry, argv)


def engines() -> list[EngineHandle]:
    """Every engine of this user on this machine, whichever notebook launched it, oldest first. Holds no lease."""
    handles = []
    for entry in registry.entries():
        try:
            link = Link.connect(entry.lease_socket)
        except OSError:  # it is just starting or just ending
            continue
        handles.append(EngineHandle(entry, link))
    return [handle for handle in handles if handle.pid != -1]


def _command_line(flags: dict[str, Any]) -> list[str]:
    words = []
    for flag, value in flags.items():
        option = "--" + flag.replace("_", "-")
        match value:
            case None | False:
                continue
            case True:
                words += [option]
            case list() | tuple():
                words += [option, *map(str, value)]
            case dict():
                words += [option, json.dumps(value)]
            case _:
                words += [option, str(value)]
    return words
