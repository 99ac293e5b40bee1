"""The SGLang frontend language, native to Jupyter.

Names are loaded when they are first used, so that `import sgl_jupyter` costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "sgl_jupyter.backends.anthropic": ("Anthropic",),
    "sgl_jupyter.backends.base": ("BackendError", "BackendUnreachable", "UnsupportedFeature"),
    "sgl_jupyter.backends.crusoe": ("Crusoe",),
    "sgl_jupyter.backends.litellm": ("LiteLLM",),
    "sgl_jupyter.backends.openai": ("OpenAI",),
    "sgl_jupyter.backends.recording": ("Recorder", "Replay", "record"),
    "sgl_jupyter.backends.runtime_endpoint": ("RuntimeEndpoint",),
    "sgl_jupyter.backends.vertexai": ("VertexAI",),
    "sgl_jupyter.lang.api": (
        "assistant",
        "assistant_begin",
        "assistant_end",
        "gen",
        "gen_int",
        "gen_string",
        "image",
        "select",
        "separate_reasoning",
        "system",
        "system_begin",
        "system_end",
        "user",
        "user_begin",
        "user_end",
        "video",
    ),
    "sgl_jupyter.lang.batch": ("BatchInterrupted",),
    "sgl_jupyter.lang.choices": (
        "greedy_token_selection",
        "token_length_normalized",
        "unconditional_likelihood_normalized",
    ),
    "sgl_jupyter.lang.config": (
        "default_backend",
        "flush_cache",
        "get_server_info",
        "global_config",
        "set_default_backend",
    ),
    "sgl_jupyter.lang.executor": ("ProgramStopped",),
    "sgl_jupyter.lang.program": ("SglFunction", "function"),
    "sgl_jupyter.lang.state": ("ProgramState", "ProgramStateGroup"),
    "sgl_jupyter.notebook.batch": ("dataframe",),
    "sgl_jupyter.lifecycle": (
        "Engine",
        "EngineDiedError",
        "Runtime",
        "ServerArgs",
        "attach",
        "available_models",
        "connect",
        "engines",
        "launch",
    ),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [*_MODULE_OF]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from sgl_jupyter.backends.anthropic import Anthropic as Anthropic
    from sgl_jupyter.backends.base import BackendError as BackendError
    from sgl_jupyter.backends.base import BackendUnreachable as BackendUnreachable
    from sgl_jupyter.backends.base import UnsupportedFeature as UnsupportedFeature
    from sgl_jupyter.backends.crusoe import Crusoe as Crusoe
    from sgl_jupyter.backends.litellm import LiteLLM as LiteLLM
    from sgl_jupyter.backends.openai import OpenAI as OpenAI
    from sgl_jupyter.backends.recording import Recorder as Recorder
    from sgl_jupyter.backends.recording import Replay as Replay
    from sgl_jupyter.backends.recording import record as record
    from sgl_jupyter.backends.runtime_endpoint import RuntimeEndpoint as RuntimeEndpoint
    from sgl_jupyter.backends.vertexai import VertexAI as VertexAI
    from sgl_jupyter.lang.api import assistant as assistant
    from sgl_jupyter.lang.api import assistant_begin as assistant_begin
    from sgl_jupyter.lang.api import assistant_end as assistant_end
    from sgl_jupyter.lang.api import gen as gen
    from sgl_jupyter.lang.api import gen_int as gen_int
    from sgl_jupyter.lang.api import gen_string as gen_string
    from sgl_jupyter.lang.api import image as image
    from sgl_jupyter.lang.api import select as select
    from sgl_jupyter.lang.api import separate_reasoning as separate_reasoning
    from sgl_jupyter.lang.api import system as system
    from sgl_jupyter.lang.api import system_begin as system_begin
    from sgl_jupyter.lang.api import system_end as system_end
    from sgl_jupyter.lang.api import user as user
    from sgl_jupyter.lang.api import user_begin as user_begin
    from sgl_jupyter.lang.api import user_end as user_end
    from sgl_jupyter.lang.api import video as video
    from sgl_jupyter.lang.batch import BatchInterrupted as BatchInterrupted
    from sgl_jupyter.lang.choices import greedy_token_selection as greedy_token_selection
    from sgl_jupyter.lang.choices import token_length_normalized as token_length_normalized
    from sgl_jupyter.lang.choices import unconditional_likelihood_normalized as unconditional_likelihood_normalized
    from sgl_jupyter.lang.config import default_backend as default_backend
    from sgl_jupyter.lang.config import flush_cache as flush_cache
    from sgl_jupyter.lang.config import get_server_info as get_server_info
    from sgl_jupyter.lang.config import global_config as global_config
    from sgl_jupyter.lang.config import set_default_backend as set_default_backend
    from sgl_jupyter.lang.executor import ProgramStopped as ProgramStopped
    from sgl_jupyter.lang.program import SglFunction as SglFunction
    from sgl_jupyter.lang.program import function as function
    from sgl_jupyter.lang.state import ProgramState as ProgramState
    from sgl_jupyter.lang.state import ProgramStateGroup as ProgramStateGroup
    from sgl_jupyter.lifecycle import Engine as Engine
    from sgl_jupyter.lifecycle import EngineDiedError as EngineDiedError
    from sgl_jupyter.lifecycle import Runtime as Runtime
    from sgl_jupyter.lifecycle import ServerArgs as ServerArgs
    from sgl_jupyter.lifecycle import attach as attach
    from sgl_jupyter.lifecycle import available_models as available_models
    from sgl_jupyter.lifecycle import connect as connect
    from sgl_jupyter.lifecycle import engines as engines
    from sgl_jupyter.lifecycle import launch as launch
    from sgl_jupyter.notebook.batch import dataframe as dataframe


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext sgl_jupyter`: the `%sgl` and `%%sgl` magics, and rich display of states."""
    from sgl_jupyter.notebook import load_ipython_extension

    load_ipython_extension(ipython)


def _join_notebook() -> None:
    """In a running IPython, importing the package is enough: states are shown richly, and the magics are there."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython and hasattr(ipython, "get_ipython") else None
    if shell is not None:
        load_ipython_extension(shell)


_join_notebook()
