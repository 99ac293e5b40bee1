"""Tools for a notebook's author: the engine panel, the playground and the token inspector (needs `pip install anywidget`).

Each is shown by being the last value of a cell, works from the keyboard, and is replaced by plain HTML when it is closed, so
that no dead widget stays in the notebook. Whatever a tool does, a magic or a function does too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine_panel import EnginePanel
    from .playground import Playground
    from .token_inspector import TokenInspector

_HOMES = {"EnginePanel": "engine_panel", "Playground": "playground", "TokenInspector": "token_inspector"}

__all__ = ["EnginePanel", "Playground", "TokenInspector"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "anywidget":
            raise
        raise ModuleNotFoundError(f"{name} needs a package that is not installed: pip install anywidget") from error
