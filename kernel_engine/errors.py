"""The errors that reach a client or a person, each a sentence that names what was wrong and what to do."""

from __future__ import annotations


class RequestError(ValueError):
    """A request that cannot be served. `status` is the HTTP status its sender gets; the engine goes on."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


class LoadError(RuntimeError):
    """The model cannot be loaded or does not fit; the process exits with code 3."""
