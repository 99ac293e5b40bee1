"""`global_config`: the few settings that hold for all programs of a process, under SGLang's names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sgl_jupyter.backends.base import BaseBackend


@dataclass
class GlobalConfig:
    """Settings read at the start of each program.

    SGLang's other switches may be set without harm; nothing reads them. (Prefixes are shared by the server, so nothing is
    traced to be cached in advance.)
    """

    default_backend: Any = None
    """Where programs run that name no backend: a backend, or anything with an `endpoint`, such as a launched engine."""

    skip_special_tokens_in_output: bool = True
    spaces_between_special_tokens_in_out: bool = True


global_config = GlobalConfig()


def set_default_backend(backend: Any) -> None:
    """Let programs run on `backend` unless they are told otherwise."""
    global_config.default_backend = backend


def resolve_backend(backend: Any = None) -> BaseBackend:
    """The backend to use: `backend`, or the default one; for an object with an `endpoint`, that endpoint.

    Raises:
        ValueError: there is neither.
        TypeError: it is no backend.
    """
    backend = global_config.default_backend if backend is None else backend
    if backend is None:
        raise ValueError(
            "no backend to run on: launch an engine and call set_default_backend(engine), or pass backend=... "
            '(for example sgl_jupyter.launch("tiny-chat"), or RuntimeEndpoint("http://localhost:30000"))'
        )
    if not isinstance(backend, BaseBackend):
        backend = getattr(backend, "endpoint", backend)
    if not isinstance(backend, BaseBackend):
        raise TypeError(f"backend must be a backend such as RuntimeEndpoint(url), not {type(backend).__name__}")
    return backend


def flush_cache(backend: Any = None) -> None:
    """Have the server forget all cached prefixes."""
    resolve_backend(backend).flush_cache()


def get_server_info(backend: Any = None) -> dict[str, Any] | None:
    """The server's arguments and state."""
    return resolve_backend(backend).get_server_info()
