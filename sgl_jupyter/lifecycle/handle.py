"""`launch` starts an engine on a model and returns its handle; `engines` lists those that run, `attach` finds one of them."""

from __future__ import annotations

import difflib
import os
import secrets
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from . import registry
from .health import wait_until_healthy
from .link import Link
from .logs import last_line
from .process import SupervisedProcess, new_entry
from .registry import Entry
from .servers import HOST, SERVERS, EngineKind, command_line, free_port
from .waiting import wait_until

if TYPE_CHECKING:
    from ..backends.base import BaseBackend


SHARED_KEEP = 30.0
"""Seconds for which a shared engine waits for the next user, if nothing else is said: long enough to restart a kernel."""


class EngineHandle(SupervisedProcess):
    """An engine: loading, ready, or dead.

    As a context manager it is ready inside and gone afterwards; one that another process launched is let go of.
    """

    def wait(self, timeout: float | None = None) -> Self:
        """Return this handle once the engine is ready; meanwhile show the last line of its log.

        Raises EngineDiedError as soon as the engine is dead, TimeoutError after `timeout` seconds, and WaitInterrupted (a
        KeyboardInterrupt) when the user interrupts, after which the engine goes on loading.
        """
        if (
            self.state == "starting" and self.url
        ):  # one that was told where to listen, and does not say when it is ready
            wait_until_healthy(self.url, process=self, api_key=self.api_key, timeout=timeout)
            return self
        wait_until(
            lambda: self.state == "ready",
            what=repr(self.name),
            process=self,
            timeout=timeout,
            pause=lambda left: self.watch(min(left, 0.2)),
            news=lambda: last_line(self.log_path),
        )
        return self

    @property
    def endpoint(self) -> BaseBackend:
        """The backend that runs programs on this engine. The first use waits until the engine is ready.

        Raises EngineDiedError if it is dead.
        """
        if not self.is_running():
            raise self.death()
        return self._endpoint

    @cached_property
    def _endpoint(self) -> BaseBackend:
        from .remote import backend_at

        return backend_at(str(self.wait().url), self.api_key)

    def stop(self) -> None:
        """Abort all requests on the engine, those of other notebooks too. Raises BackendError if it has no route for that."""
        self.endpoint.abort_all()

    def release(self) -> None:
        """Let go of the engine. It ends when nobody holds it any more, and has not been held for as long as it is kept."""
        self._link.close()

    def __enter__(self) -> Self:
        try:
            return self.wait()
        except BaseException:
            self.terminate()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_from_here:
            self.terminate()
        else:
            self.release()


def launch(
    model: str | os.PathLike[str],
    *,
    engine: EngineKind = "kernel",
    name: str | None = None,
    api_key: str | None = None,
    python: str | None = None,
    share: bool = False,
    keep: float | None = None,
    engine_args: Sequence[str] = (),
    **flags: Any,
) -> EngineHandle:
    """Start an engine on `model` (a bundled name, a folder, a hub id) and return at once, while it loads.

    It listens on loopback, asks for a fresh bearer token, and ends with this process; a shared one with its last user.

    Args:
        engine: "kernel", the engine of this project, for one accelerator or a CPU; or "sglang" or "vllm", where they are
            installed, for models that need several.
        name: what to call it, if not as its model.
        api_key: the bearer token to ask for.
        python: the interpreter of the environment in which the engine is installed, if not the notebook's.
        share: let other notebooks of this user use it too. Where a shared engine of that name runs already, launched in the same
            way, it is that engine which is returned.
        keep: seconds that the engine is kept for the next user after its last one; such an engine is shared. Without it a shared
            engine is kept for half a minute, so that a kernel can be restarted.
        engine_args: words that go to the engine's command line as they are.
        flags: the engine's, with SGLang's names: `max_total_tokens=8192` becomes `--max-total-tokens 8192`, True a bare flag,
            False and None nothing, a list several values, a dict JSON. What vLLM calls otherwise is translated.

    Raises:
        ModuleNotFoundError: the engine is not installed.
        RuntimeError: this machine has too few GPUs for the flags, or a shared engine of that name was launched otherwise.
    """
    if engine not in SERVERS:
        raise ValueError(f"engine must be one of {', '.join(map(repr, SERVERS))}, not {engine!r}")
    server = SERVERS[engine]
    model = os.fspath(model)
    entry = new_entry(
        name or Path(model).name,
        model,
        url=None if server.tells_its_url else f"http://{HOST}:{flags.get('port') or free_port(HOST)}",
        api_key=api_key or secrets.token_urlsafe(32),
        shared=share or keep is not None,
        keep=SHARED_KEEP if share and keep is None else keep or 0.0,
        launched_as=[engine, model, *command_line(flags), *engine_args],
    )
    command = server.command(entry, flags, engine_args, python)
    if not entry.shared:
        return EngineHandle.start(entry, command.argv, command.env, command.files)
    with registry.locked():
        return _attach_like(entry) or EngineHandle.start(entry, command.argv, command.env, command.files)


def attach(name: str) -> EngineHandle:
    """The engine `name` of this user on this machine, whichever notebook launched it.

    A shared one lives at least as long as this process; a private one ends with the notebook that launched it.

    Raises:
        LookupError: no such engine is running.
    """
    running = {handle.name: handle for handle in engines()}
    if name not in running:
        close = difflib.get_close_matches(name, running, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise LookupError(f"no engine {name!r} is running on this machine.{hint}")
    running[name].hold()
    return running[name]


def _attach_like(entry: Entry) -> EngineHandle | None:
    """The shared engine that `entry` would start, if it runs already."""
    running = next((handle for handle in engines() if handle.is_shared and handle.name == entry.name), None)
    if running is None or not running.is_running():
        return None
    if running.launched_as != entry.launched_as:
        raise RuntimeError(
            f"a shared engine {entry.name!r} is running already, launched as {' '.join(running.launched_as)!r} and not as "
            f"{' '.join(entry.launched_as)!r}: give this one another name"
        )
    running.hold()
    return running


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
