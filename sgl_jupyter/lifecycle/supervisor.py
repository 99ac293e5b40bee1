"""The process between kernel and engine: `python -m sgl_jupyter.lifecycle.supervisor`, started by `process.start`.

It owns the engine's process group, its registry entry and its private folder, and removes all three when the last lease is
gone. A lease is a connected socket that a kernel holds: however the kernel ends, the operating system closes it. The first
lease is this process's standard input, so there is no moment at which an engine runs and no kernel holds it.

Messages are lines of JSON. The first line on standard input is the `Spec`. After it, each connection may send {"op": ...}:
"lease" (this connection keeps the engine alive for "user"), "ready" (with "url"), "terminate", "kill". Each connection is sent
the registry entry when it is made and whenever the entry changes; the end of the stream says that nothing is left.

Standard library only and one thread: it must start fast, stay small, and the engine's death signal is bound to its thread.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from . import registry
from .connection import Connection
from .pids import ProcessId, signal_group
from .registry import Entry

GRACE = 1.5
"""Seconds from SIGTERM to SIGKILL. A kernel's end must leave nothing behind after 3 s."""
KILL_PATIENCE = 10.0
"""Seconds that a killed process may take to leave the kernel of the operating system (it may be inside a driver)."""
READY_POLL = 0.05
"""Seconds between looks for the ready file while the engine loads."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Spec:
    """What to run, and the entry under which it is known."""

    entry: Entry
    argv: list[str]
    env: dict[str, str]
    """Added to the environment that the supervisor inherits from the kernel."""
    files: dict[str, str]
    """Texts to put into the engine's private folder, by their names there."""
    registry: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes) -> Spec:
        values = json.loads(text)
        return cls(**values | {"entry": Entry(**values["entry"])})


class Supervisor:
    """Runs one engine for as long as a lease is held."""

    def __init__(self, spec: Spec, first_lease: Connection) -> None:
        self._spec = spec
        self._registry = Path(spec.registry)
        self._entry = replace(spec.entry, supervisor=ProcessId.of(os.getpid()))
        self._selector = selectors.DefaultSelector()
        self._connections: list[Connection] = []
        self._engine: subprocess.Popen[bytes] | None = None
        self._is_closing = False
        self._grace = GRACE
        self._deserted: float | None = None
        """When the last lease went, in the time of `time.monotonic`; None while there is one."""
        first_lease.user = spec.entry.owner or ""
        self._add(first_lease)

    def run(self) -> None:
        registry.write(self._registry, self._entry)
        with ExitStack() as at_end:
            at_end.callback(registry.remove, self._registry, self._entry)
            at_end.callback(self._end_engine)
            self._watch_signals()
            self._prepare_folder()
            self._spawn_engine()
            while not self._is_closing and self._patience() > 0:
                self._step()

    def _patience(self) -> float:
        """Seconds that the engine may go on without news."""
        if self._deserted is None:
            return math.inf
        return 0.0 if self._entry.state == "dead" else self._deserted + self._entry.keep - time.monotonic()

    def _prepare_folder(self) -> None:
        os.mkdir(self._entry.folder, 0o700)  # fails if it exists: nobody can have put another's folder there
        for name, text in self._spec.files.items():
            registry.write_private(Path(self._entry.folder, name), text)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._entry.lease_socket))
        listener.listen()
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))

    def _watch_signals(self) -> None:
        woken, waker = socket.socketpair()
        for end in (woken, waker):
            end.setblocking(False)
        signal.set_wakeup_fd(waker.fileno())
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._waker = waker  # to keep it open
        self._selector.register(woken, selectors.EVENT_READ, lambda: self._on_signals(woken.recv(4096)))

    def _spawn_engine(self) -> None:
        self._engine = subprocess.Popen(
            self._spec.argv,
            stdin=subprocess.DEVNULL,
            env=os.environ | self._spec.env,
            process_group=0,
            preexec_fn=_tie_to_this_process(),
        )
        self._publish(engine=ProcessId.of(self._engine.pid), users=self._users())

    def _step(self) -> None:
        pause = min(self._patience(), READY_POLL if self._entry.state == "starting" else math.inf)
        for key, _ in self._selector.select(None if pause == math.inf else pause):
            key.data()
        if self._entry.state == "starting":
            self._look_for_ready_file()

    def _look_for_ready_file(self) -> None:
        try:
            url = json.loads(self._entry.ready_file.read_bytes())["url"]
        except FileNotFoundError:
            return
        self._publish(state="ready", url=url)

    def _accept(self, listener: socket.socket) -> None:
        connection = Connection(listener.accept()[0])
        self._add(connection)
        connection.send(self._entry.to_json())

    def _add(self, connection: Connection) -> None:
        self._connections.append(connection)
        self._selector.register(connection.socket, selectors.EVENT_READ, lambda: self._on_messages(connection))

    def _on_messages(self, connection: Connection) -> None:
        try:
            for line in connection.lines():
                self._obey(connection, json.loads(line))
        except (EOFError, ValueError):
            self._selector.unregister(connection.socket)
            self._connections.remove(connection)
            connection.socket.close()
            if connection.user is not None:
                self._count_leases()

    def _obey(self, connection: Connection, message: dict[str, Any]) -> None:
        match message:
            case {"op": "lease"}:
                connection.user = str(message.get("user", ""))
                self._count_leases()
            case {"op": "ready", "url": str(url)} if self._entry.state == "starting":
                self._publish(state="ready", url=url)
            case {"op": "terminate"}:
                self._is_closing = True
            case {"op": "kill"}:
                self._grace = 0.0
                self._is_closing = True

    def _count_leases(self) -> None:
        users = self._users()
        self._deserted = None if users else time.monotonic()
        self._publish(users=users)

    def _users(self) -> list[str]:
        return [connection.user for connection in self._connections if connection.user is not None]

    def _on_signals(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers:
            self._is_closing = True
        self._reap()
        if self._engine and self._engine.returncode is not None and self._entry.state != "dead":
            self._grace = 0.0  # the engine is dead: what it left has nobody to answer to
            self._end_engine()

    def _reap(self) -> None:
        """Collect every child that has ended: the engine, and its orphans, which fall to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._engine and pid == self._engine.pid:
                self._engine.returncode = os.waitstatus_to_exitcode(status)

    def _end_engine(self) -> None:
        """Leave no process in the engine's group, and say so."""
        if self._engine is None or self._entry.state == "dead":
            return
        if not (self._grace and self._is_gone_after(signal.SIGTERM, self._engine.pid, self._grace)):
            self._is_gone_after(signal.SIGKILL, self._engine.pid, KILL_PATIENCE)
        self._end_strays()
        self._publish(state="dead", returncode=self._engine.returncode)

    def _is_gone_after(self, number: signal.Signals, group: int, patience: float) -> bool:
        deadline = time.monotonic() + patience
        is_there = signal_group(group, number)
        while is_there and time.monotonic() < deadline:
            time.sleep(0.01)
            self._reap()
            is_there = signal_group(group, 0)
        return not is_there

    def _end_strays(self) -> None:
        """Kill what left the engine's group for one of its own, and so fell to us."""
        deadline = time.monotonic() + KILL_PATIENCE
        while (strays := _children()) and time.monotonic() < deadline:
            for pid in strays:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
            self._reap()

    def _publish(self, **changes: Any) -> None:
        self._entry = replace(self._entry, **changes)
        registry.write(self._registry, self._entry)
        for connection in self._connections:
            connection.send(self._entry.to_json())


def _children() -> list[int]:
    """This process's children, zombies included; on Linux only, where orphans come to it."""
    try:
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
    except FileNotFoundError:
        return []


def _tie_to_this_process() -> Callable[[], None] | None:
    """On Linux, let the engine die with this process however it dies, and let the engine's orphans become its children."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor = os.getpid()

    def in_engine() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)

    return in_engine


def main() -> None:
    first_lease = Connection(socket.socket(fileno=os.dup(0)))
    try:
        while not (lines := list(first_lease.lines())):
            pass
    except EOFError:  # the kernel died while it was starting us
        return
    Supervisor(Spec.from_json(lines[0]), first_lease).run()


if __name__ == "__main__":
    main()
