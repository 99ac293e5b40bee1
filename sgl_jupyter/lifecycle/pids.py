"""Which process is meant. A pid alone may be given to another process later; a pid with its start time may not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    pid: int
    started: float
    """When the process started: clock ticks since boot on Linux, seconds since 1970 elsewhere."""

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process, zombie or not, that has `pid` now. Raises ProcessLookupError if there is none."""
        found = _state_and_start(pid)
        if found is None:
            raise ProcessLookupError(f"no process has pid {pid}")
        return cls(pid, found[1])

    def is_alive(self) -> bool:
        """True while the process runs; False once it is gone, a zombie, or its pid is another process's."""
        found = _state_and_start(self.pid)
        return found is not None and found[0] not in ("Z", "X") and found[1] == self.started

    def is_replaced(self) -> bool:
        """True if `pid` is another process's now."""
        found = _state_and_start(self.pid)
        return found is not None and found[1] != self.started


def signal_group(leader: int, number: int) -> bool:
    """Send signal `number` (0: none, only look) to the group that `leader` founded. False if no process is left in it."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM where only zombies are left
        return False
    return True


def _state_and_start(pid: int) -> tuple[str, float] | None:
    proc = Path("/proc")
    if not (proc / "self/stat").exists():
        return _ask_psutil(pid)
    try:
        stat = (proc / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the program's name, in parentheses, may hold spaces
    return fields[0], float(fields[19])


def _ask_psutil(pid: int) -> tuple[str, float] | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return "Z" if process.status() == psutil.STATUS_ZOMBIE else "R", process.create_time()
    except psutil.NoSuchProcess:
        return None
