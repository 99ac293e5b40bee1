"""The errors that reach a client or a person, each a sentence that names what was wrong and what to do."""

from __future__ import annotations


class RequestError(ValueError):
    """A request that cannot be served; the engine goes on.

    `status` is the HTTP status its sender gets, `param` the field that is wrong, where one is.
    """

    def __init__(self, message: str, status: int = 400, param: str | None = None):
        super().__init__(message)
        self.status, self.param = status, param


class LoadError(RuntimeError):
    """The model cannot be loaded or does not fit; the process exits with code 3."""
