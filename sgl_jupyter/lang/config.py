"""`global_config`: the few settings that hold for all programs of a process, under SGLang's names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sgl_jupyter.backends.base import BaseBackend


@dataclass
class GlobalConfig:
    """Settings read at the start of each program.

    The last two are SGLang's and have no effect: servers share prefixes by themselves, so that no program is traced to have its
    prefix cached in advance, and joined forks are joined as text.
    """

    verbosity: int = 0
    """From 2 on, each program prints its text when it is done."""

    default_backend: Any = None
    """Where programs run that name no backend: a backend, or anything with an `endpoint`, such as a launched engine."""

    skip_special_tokens_in_output: bool = True
    spaces_between_special_tokens_in_out: bool = True
    enable_precache_with_tracing: bool = True
    enable_parallel_encoding: bool = True


global_config = GlobalConfig()

_context_backend: ContextVar[Any] = ContextVar("default_backend", default=None)


def set_default_backend(backend: Any) -> None:
    """Let programs run on `backend` unless they are told otherwise."""
    global_config.default_backend = backend


@contextmanager
def default_backend(backend: Any) -> Iterator[None]:
    """Programs that begin in the block run on `backend` unless they are told otherwise; those of other threads and tasks do not.

    It holds before `set_default_backend`, and an inner block before an outer one.
    """
    token = _context_backend.set(backend)
    try:
        yield
    finally:
        _context_backend.reset(token)


def resolve_backend(backend: Any = None) -> BaseBackend:
    """The backend to use: `backend`, or the default one; for an object with an `endpoint`, that endpoint.

    Raises:
        ValueError: there is neither.
        TypeError: it is no backend.
    """
    candidates = (backend, _context_backend.get(), global_config.default_backend)
    backend = next((candidate for candidate in candidates if candidate is not None), None)
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
