"""What engines wrote: one file each, that outlives the engine by a while so that its last words can be read."""

from __future__ import annotations

import os
from pathlib import Path

from . import registry

KEPT = 20
"""Logs of engines that are gone; older ones are deleted."""
TAIL_BYTES = 1 << 18
LAST_WORDS = 20
"""Lines of a log that an error tells, none longer than `WIDTH` characters: servers log all their settings on one line."""
WIDTH = 240


def tail(path: Path, n: int) -> list[str]:
    """The last `n` lines of a log; of a line that was redrawn with carriage returns, its last state."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return [line for line in lines if line.strip()][-n:] if n > 0 else []


def last_line(path: Path) -> str:
    return "".join(tail(path, 1))


def last_words(path: Path) -> str:
    """The end of a log, for an error's message."""
    lines = (line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in tail(path, LAST_WORDS))
    return "\n".join(lines) or "(empty)"


def prune() -> None:
    """Delete all but the newest logs of engines that are gone."""
    in_use = {Path(entry.log) for entry in registry.entries()}
    unused = [path for path in registry.logs_folder().glob("*.log") if path not in in_use]
    unused.sort(key=lambda path: path.name, reverse=True)
    for path in unused[KEPT:]:
        path.unlink(missing_ok=True)
