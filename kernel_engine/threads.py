"""How many threads compute: the engine's thread with several, every other one alone.

OpenMP gives each thread that computes with several a team of its own. If there are more threads than cores in all teams, even
idle ones, it puts them to sleep between any two matrices, which halves the rate at which weights are read.
"""

from __future__ import annotations

import torch


def compute_alone() -> int:
    """Let the calling thread compute alone, and so any that has not computed yet; returns how many it computed with before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    return before


def compute_with(threads: int) -> None:
    """Let the calling thread compute with `threads`, itself included; and any that has not computed yet."""
    torch.set_num_threads(threads)
    torch.get_num_threads()  # settles it for this thread; else its first operation would take what is set by then
