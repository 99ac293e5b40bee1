"""Engines and their lives: launch, wait, terminate, and the promise that nothing outlives the kernel that started it.

Imported by the supervisor process too, so nothing is loaded before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .handle import EngineHandle, attach, engines, launch
    from .load import Load, load_of
    from .models import AvailableModel, available_models
    from .offline import Engine, Runtime, ServerArgs
    from .process import EngineDiedError, SupervisedProcess
    from .remote import RemoteEngine, connect
    from .server_command import ServerProcess, launch_server_cmd, wait_for_server
    from .waiting import WaitInterrupted

_HOMES = {
    "AvailableModel": "models",
    "Engine": "offline",
    "EngineDiedError": "process",
    "EngineHandle": "handle",
    "Load": "load",
    "RemoteEngine": "remote",
    "Runtime": "offline",
    "ServerArgs": "offline",
    "ServerProcess": "server_command",
    "SupervisedProcess": "process",
    "WaitInterrupted": "waiting",
    "attach": "handle",
    "available_models": "models",
    "connect": "remote",
    "engines": "handle",
    "launch": "handle",
    "launch_server_cmd": "server_command",
    "load_of": "load",
    "wait_for_server": "server_command",
}

__all__ = [
    "AvailableModel",
    "Engine",
    "EngineDiedError",
    "EngineHandle",
    "Load",
    "RemoteEngine",
    "Runtime",
    "ServerArgs",
    "ServerProcess",
    "SupervisedProcess",
    "WaitInterrupted",
    "attach",
    "available_models",
    "connect",
    "engines",
    "launch",
    "launch_server_cmd",
    "load_of",
    "wait_for_server",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
