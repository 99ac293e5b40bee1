"""A container's limits count, in the form of either version of control groups."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from kernel_engine.machine import free_memory, usable_cores

GB = 10**9


@pytest.fixture(autouse=True)
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 100 GB, and the folder of its control group."""
    monkeypatch.setattr("kernel_engine.machine.GROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=100 * GB))
    return tmp_path


def write(group: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (group / name).parent.mkdir(exist_ok=True)
        (group / name).write_text(text + "\n")


def test_without_a_group_all_of_it_is_usable():
    assert (usable_cores(64), free_memory()) == (64, 100 * GB)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "5000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "400000"}, 64),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, dict) else None,
)
def test_cores(group: Path, files: dict[str, str], cores: int):
    write(group, files)
    assert usable_cores(64) == cores


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "max", "memory.current": "5"}, 100 * GB),
        ({"memory.max": f"{8 * GB}", "memory.current": f"{3 * GB}"}, 5 * GB),
        (
            {
                "memory.max": f"{8 * GB}",
                "memory.current": f"{7 * GB}",
                "memory.stat": f"anon 9\ninactive_file {2 * GB}",
            },
            3 * GB,
        ),
        ({"memory.max": f"{800 * GB}", "memory.current": f"{3 * GB}"}, 100 * GB),
        ({"memory.max": f"{2 * GB}", "memory.current": f"{3 * GB}"}, 0),
        (
            {
                "memory/memory.limit_in_bytes": f"{8 * GB}",
                "memory/memory.usage_in_bytes": f"{7 * GB}",
                "memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GB}",
            },
            2 * GB,
        ),
        ({"memory/memory.limit_in_bytes": f"{1 << 63}", "memory/memory.usage_in_bytes": "7"}, 100 * GB),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, dict) else None,
)
def test_memory(group: Path, files: dict[str, str], free: int):
    write(group, files)
    assert free_memory() == free
