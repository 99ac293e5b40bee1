"""Engines and their lives: launch, wait, terminate, and the promise that nothing outlives the kernel that started it.

Imported by the supervisor process too, so nothing is loaded before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .handle import EngineHandle, engines, launch
    from .process import EngineDiedError, SupervisedProcess
    from .server_command import ServerProcess, launch_server_cmd, wait_for_server
    from .waiting import WaitInterrupted

_HOMES = {
    "EngineDiedError": "process",
    "EngineHandle": "handle",
    "ServerProcess": "server_command",
    "SupervisedProcess": "process",
    "WaitInterrupted": "waiting",
    "engines": "handle",
    "launch": "handle",
    "launch_server_cmd": "server_command",
    "wait_for_server": "server_command",
}

__all__ = [
    "EngineDiedError",
    "EngineHandle",
    "ServerProcess",
    "SupervisedProcess",
    "WaitInterrupted",
    "engines",
    "launch",
    "launch_server_cmd",
    "wait_for_server",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
