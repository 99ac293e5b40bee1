"""The engines of this user on this machine: one private JSON file each, written by the engine's supervisor.

An entry exists exactly as long as its supervisor; the entry of a supervisor that was killed goes with the first reader.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from .pids import ProcessId, signal_group

State = Literal["starting", "ready", "dead"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """All that is known of one engine. Supervisors send it to whoever is connected, each time that it changes."""

    id: str
    name: str
    model: str
    host: str = field(default_factory=socket.gethostname)
    """The machine that the pids belong to: home folders, and so registries, can be shared by several."""
    owner: str | None
    """The notebook that launched the engine, where Jupyter tells its name."""
    created: float
    """Seconds since 1970."""
    folder: str
    """The engine's private folder: lease socket, API key, ready file. Gone with the engine."""
    log: str
    """The engine's output. Outlives the engine."""
    url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    shared: bool = False
    """Whether other notebooks may hold it too."""
    keep: float = 0.0
    """Seconds that the engine lives on after its last lease."""
    launched_as: list[str] = field(default_factory=list)
    """The kind of engine, the model and the flags, by which a second launch of a shared engine is known to mean the same."""
    users: list[str] = field(default_factory=list)
    """Who holds a lease: the notebooks, as far as Jupyter tells their names."""
    state: State = "starting"
    returncode: int | None = None
    """The engine's exit code once it is dead; -N if signal N killed it."""
    supervisor: ProcessId | None = None
    engine: ProcessId | None = None

    @property
    def lease_socket(self) -> Path:
        return Path(self.folder, "lease")

    @property
    def api_key_file(self) -> Path:
        return Path(self.folder, "api_key")

    @property
    def config_file(self) -> Path:
        return Path(self.folder, "config.yaml")

    @property
    def ready_file(self) -> Path:
        return Path(self.folder, "ready.json")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Raises ValueError or TypeError if `text` is no entry of this version."""
        values: dict[str, Any] = json.loads(text)
        for role in ("supervisor", "engine"):
            if values[role] is not None:
                values[role] = ProcessId(**values[role])
        return cls(**values)

    def killed(self) -> Entry:
        """What is left to say when the supervisor was killed, which took the engine with it."""
        return replace(self, state="dead", returncode=-signal.SIGKILL)


def home() -> Path:
    """Where Jupyter keeps what belongs to running processes, private to the user."""
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir(), "sgl_jupyter")


def engines_folder() -> Path:
    return _private_folder(home() / "engines")


def logs_folder() -> Path:
    return _private_folder(home() / "logs")


def write(folder: Path, entry: Entry) -> None:
    write_private(folder / f"{entry.id}.json", entry.to_json())


def write_private(path: Path, text: str) -> None:
    """Put `text` at `path`, readable by its owner only, in one step: a reader sees all of it or none."""
    draft = path.with_suffix(".draft")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(draft, path)


def remove(folder: Path, entry: Entry) -> None:
    shutil.rmtree(entry.folder, ignore_errors=True)
    (folder / f"{entry.id}.json").unlink(missing_ok=True)


@contextmanager
def locked() -> Iterator[None]:
    """For one process at a time: what it finds in the registry holds until it leaves the block."""
    import fcntl

    with open(os.open(home() / "lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def entries() -> list[Entry]:
    """The engines that have a supervisor on this machine, oldest first. Clears away what killed supervisors left."""
    folder = engines_folder()
    found = []
    for path in folder.glob("*.json"):
        try:
            entry = Entry.from_json(path.read_bytes())
        except (OSError, ValueError, TypeError, KeyError):  # gone since, or written by another version
            continue
        if entry.host != socket.gethostname():
            continue
        if entry.supervisor and entry.supervisor.is_alive():
            found.append(entry)
        else:
            _bury(folder, entry)
    return sorted(found, key=lambda entry: entry.created)


def _bury(folder: Path, entry: Entry) -> None:
    """End the engine of a killed supervisor, where the operating system has not, and remove its traces."""
    if entry.engine and entry.engine.is_alive():
        signal_group(entry.engine.pid, signal.SIGKILL)
    remove(folder, entry)


def _private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
