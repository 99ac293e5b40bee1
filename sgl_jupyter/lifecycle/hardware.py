"""What this machine can run: its GPUs and its free memory, found without importing a tensor library."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PATIENCE = 20.0
"""Seconds for nvidia-smi, which takes its time where no process keeps the driver loaded."""


def count_gpus() -> int:
    """How many NVIDIA or AMD GPUs a process started from here would see."""
    found = len(_nvidia("index")) or len(_amd_nodes())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    # CUDA's rule: what stands behind the first entry that is no device is not looked at.
    entries = [entry.strip() for entry in visible.split(",")]
    listed = next((place for place, entry in enumerate(entries) if entry in ("", "-1")), len(entries))
    return min(found, listed)


def free_memory() -> int:
    """Bytes that a model can have: of the NVIDIA GPU with the most free memory, or else of main memory."""
    if gpus := [int(mebibytes) for mebibytes in _nvidia("memory.free") if mebibytes.isdecimal()]:
        return max(gpus) << 20
    import psutil

    return psutil.virtual_memory().available


def gpu_memory_by_pid() -> dict[int, int]:
    """Bytes of NVIDIA GPUs' memory that each process holds."""
    held: dict[int, int] = {}
    for line in _nvidia("pid,used_memory", of="compute-apps"):
        pid, _, mebibytes = line.partition(", ")
        if mebibytes.isdecimal():
            held[int(pid)] = held.get(int(pid), 0) + (int(mebibytes) << 20)
    return held


def _nvidia(fields: str, of: str = "gpu") -> list[str]:
    """A line of `fields` for each NVIDIA GPU, or whatever else; nothing where there is no GPU, or no driver for it."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-{of}={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _amd_nodes() -> list[Path]:
    """The nodes of Linux's AMD driver that are GPUs; CPUs have the GPU id 0."""
    ids = Path("/sys/class/kfd/kfd/topology/nodes").glob("*/gpu_id")
    return [path for path in ids if path.read_text().strip() not in ("", "0")]
