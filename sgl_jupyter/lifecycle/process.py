"""A process under a supervisor, seen from a kernel: started, watched and ended, and never left behind."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from . import logs, registry
from .link import Link
from .pids import signal_group
from .registry import Entry, State
from .supervisor import Spec

MAX_SOCKET_PATH = 100
"""Bytes. Operating systems allow the path of a Unix socket 104 to 108."""


class EngineDiedError(RuntimeError):
    """An engine's process ended while it was needed. The message holds its exit code and the end of its log."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: no line of the cell is to blame, nor one of ours."""
        return [f"{type(self).__name__}: {self}"]


class SupervisedProcess:
    """What `subprocess.Popen` tells of a process and can do to it, for one that dies with the kernel and has a log."""

    def __init__(self, entry: Entry, link: Link, supervisor: subprocess.Popen[bytes] | None = None) -> None:
        self._last_entry = entry
        self._link = link
        self._supervisor = supervisor

    @classmethod
    def start(
        cls,
        entry: Entry,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Self:
        """Start `argv`, known as `entry`, under a supervisor of its own; return when it has a pid.

        `env` is added to this process's environment. `files` are texts to put into the entry's private folder, by name.

        Raises RuntimeError if the operating system cannot run `argv`.
        """
        if not hasattr(socket, "AF_UNIX") or not hasattr(os, "fork"):
            raise NotImplementedError(
                "engines can be launched on Linux and macOS; elsewhere, connect to one by its URL"
            )
        logs.prune()
        # Unbuffered, so that what a Python engine prints is in its log at once.
        env = {"PYTHONUNBUFFERED": "1", **(env or {})}
        spec = Spec(entry, list(argv), env, dict(files or {}), str(registry.engines_folder()))
        ours, theirs = socket.socketpair()
        link = Link(ours, is_lease=True)
        try:
            supervisor = _spawn_supervisor(theirs, entry.log)
            link.send_line(spec.to_json())
            while (started := link.latest()) is None and not link.has_ended:
                link.wait(1.0)
            if started is None:
                why = logs.last_line(Path(entry.log)) or f"its supervisor ended with code {supervisor.wait()}"
                raise RuntimeError(f"{entry.name!r} could not be started: {why}")
            return cls(started, link, supervisor)
        except BaseException:
            link.close()  # which ends the supervisor, and all that it has started
            raise

    def __repr__(self) -> str:
        entry = self._entry
        state = f"{entry.state}, exit code {entry.returncode}" if entry.state == "dead" else entry.state
        return f"<{type(self).__name__} {self.name!r}: {state}, pid {self.pid}, {entry.url or 'no URL yet'}>"

    @property
    def id(self) -> str:
        return self._last_entry.id

    @property
    def name(self) -> str:
        return self._last_entry.name

    @property
    def model(self) -> str:
        return self._last_entry.model

    @property
    def owner(self) -> str | None:
        """The notebook that launched it, where Jupyter tells its name."""
        return self._last_entry.owner

    @property
    def is_shared(self) -> bool:
        """Whether other notebooks may hold it too."""
        return self._last_entry.shared

    @property
    def is_from_here(self) -> bool:
        """Whether this process started it."""
        return self._supervisor is not None

    @property
    def launched_as(self) -> list[str]:
        """The kind of engine, the model and the flags."""
        return self._last_entry.launched_as

    @property
    def users(self) -> list[str]:
        """The notebooks that hold it; an empty name for one that Jupyter does not tell of."""
        return self._entry.users

    @property
    def used_by(self) -> str:
        """The notebooks that hold it, in words: their names, and how many there are of which Jupyter does not tell it."""
        users = self.users
        named = sorted({Path(user).name for user in users if user})
        return ", ".join([*named, *([f"{users.count('')} unnamed"] if "" in users else [])])

    @property
    def pid(self) -> int:
        return self._last_entry.engine.pid if self._last_entry.engine else -1

    @property
    def log_path(self) -> Path:
        return Path(self._last_entry.log)

    @property
    def url(self) -> str | None:
        """Where the server answers; None before it has told."""
        return self._entry.url

    @property
    def api_key(self) -> str | None:
        """The bearer token that the server asks for, where it is known."""
        return self._last_entry.api_key

    @property
    def state(self) -> State:
        return self._entry.state

    @property
    def returncode(self) -> int | None:
        """The exit code once the process is dead, -N if signal N ended it; None before."""
        return self._entry.returncode

    def is_running(self) -> bool:
        return self.state != "dead"

    def poll(self) -> int | None:
        return self.returncode

    def hold(self) -> None:
        """Keep the process alive for as long as this one lives, if it may be shared."""
        if self.is_shared and not self.is_from_here:
            self._link.hold(notebook_name() or "")

    def watch(self, seconds: float) -> None:
        """Return when there may be news of the process, after `seconds` at the latest."""
        self._link.wait(seconds)

    def mark_ready(self, url: str) -> None:
        """Note in the registry that the server answers at `url`, for servers that do not say so themselves."""
        self._link.send("ready", url=url)
        while self.state == "starting":
            self._link.wait(1.0)

    def logs(self, n: int = 50) -> str:
        """The last `n` lines that the process wrote, also after its end."""
        return "\n".join(logs.tail(self.log_path, n))

    def terminate(self) -> None:
        """End the process and all that it started: SIGTERM, and SIGKILL 1.5 s later. Returns when they are gone.

        May be called any number of times.
        """
        self._end("terminate")

    def kill(self) -> None:
        """End the process and all that it started with SIGKILL. Returns when they are gone."""
        self._end("kill")

    def death(self) -> EngineDiedError:
        """The error that tells how the process ended. Dismisses the supervisor, which has stayed to be asked."""
        code = self.returncode
        self.terminate()
        how = f"exited with code {code}"
        if code is not None and code < 0:
            how = f"was ended by signal {-code} ({signal.strsignal(-code)})"
        end = logs.last_words(self.log_path)
        return EngineDiedError(f"{self.name!r} {how}. The end of its log, {self.log_path}:\n{end}")

    def _end(self, op: str) -> None:
        self._refresh()
        self._link.send(op)
        while self._link.is_open:
            self._link.wait(1.0)
            self._refresh()

    @property
    def _entry(self) -> Entry:
        self._refresh()
        return self._last_entry

    def _refresh(self) -> None:
        self._last_entry = self._link.latest() or self._last_entry
        if self._link.has_ended:
            self._settle()
        elif not self._link.is_open and self._last_entry.state != "dead":
            self._look_on()

    def _settle(self) -> None:
        """The supervisor is gone. If it was killed, and the engine with it, end what the engine has left."""
        if self._supervisor is not None:
            self._supervisor.wait()
        entry = self._last_entry
        if entry.state != "dead":
            if entry.engine and not entry.engine.is_replaced():
                signal_group(entry.engine.pid, signal.SIGKILL)
            registry.remove(registry.engines_folder(), entry)
            self._last_entry = entry.killed()

    def _look_on(self) -> None:
        """In a forked child, to which no link passes, connect anew, without a lease."""
        self._supervisor = None
        try:
            self._link = Link.connect(self._last_entry.lease_socket)
        except OSError:
            self._last_entry = self._last_entry.killed()


def new_entry(name: str, model: str, **known: Any) -> Entry:
    """The entry of an engine that is about to be started, with places of its own for its files, and what else is `known`."""
    created = time.time()
    id = secrets.token_hex(6)
    folder = Path(tempfile.gettempdir(), f"sgl-{id}")
    if len(os.fsencode(folder / "lease")) > MAX_SOCKET_PATH:
        folder = Path("/tmp", folder.name)
    moment = time.strftime("%Y%m%d-%H%M%S", time.localtime(created))
    log = registry.logs_folder() / f"{moment}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{id}.log"
    return Entry(
        id=id,
        name=name,
        model=model,
        owner=notebook_name(),
        created=created,
        folder=str(folder),
        log=str(log),
        **known,
    )


def notebook_name() -> str | None:
    """The notebook that this process is the kernel of, where Jupyter tells."""
    return os.environ.get("JPY_SESSION_NAME")


def _spawn_supervisor(lease: socket.socket, log_path: str) -> subprocess.Popen[bytes]:
    """Start a supervisor in a session of its own, out of reach of the signals that Jupyter sends to its kernels' groups."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    # -P: modules in the notebook's folder must not stand in for the standard library's.
    argv = [sys.executable, "-P", "-m", "sgl_jupyter.lifecycle.supervisor"]
    with lease, open(os.open(log_path, flags, 0o600), "ab") as log:
        return subprocess.Popen(argv, stdin=lease.fileno(), stdout=log, stderr=log, start_new_session=True)
