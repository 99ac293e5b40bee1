"""What of the machine this process may use, where a container gives it less than there is.

A limit of a control group (https://docs.kernel.org/admin-guide/cgroup-v2.html) is looked for where containers see their own,
in the form of either version.
"""

from __future__ import annotations

import math
from pathlib import Path

import psutil

GROUP = Path("/sys/fs/cgroup")


def usable_cores(cores: int) -> int:
    """`cores`, or fewer if the container has less processor time than that."""
    quota, _, period = _text("cpu.max").partition(" ")
    quota, period = quota or _text("cpu/cpu.cfs_quota_us"), period or _text("cpu/cpu.cfs_period_us")
    if not (quota.isdecimal() and period.isdecimal()):  # "max" and "-1" stand for no limit
        return cores
    return min(cores, max(1, math.ceil(int(quota) / int(period))))


def free_memory() -> int:
    """Bytes that can be had; what the system keeps of files, and would drop, counts as free."""
    free = psutil.virtual_memory().available
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        if _text(limit).isdecimal() and _text(used).isdecimal():
            statistics = dict(
                line.split(" ", 1) for line in _text(str(Path(limit).with_name("memory.stat"))).splitlines()
            )
            free = min(free, int(_text(limit)) - int(_text(used)) + int(statistics.get(cached, 0)))
    return max(0, free)


def _text(name: str) -> str:
    """What the control group's file says; empty if there is none."""
    try:
        return (GROUP / name).read_text().strip()
    except OSError:
        return ""
