"""How a program writes: the same words whether its state runs or is traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, Self, overload

from sgl_jupyter.lang.api import message
from sgl_jupyter.lang.ir import (
    SglExpr,
    SglRoleBegin,
    SglRoleEnd,
    SglSetVar,
    SglSubmitted,
    SglVarScopeBegin,
    SglVarScopeEnd,
    as_expr,
)


class Writable(Protocol):
    """What expressions can be appended to."""

    @property
    def is_open(self) -> bool: ...

    def submit(self, expr: SglExpr) -> None: ...


class Writer:
    """`s += x` appends text or an expression; `s[name] = value` sets a variable.

    Args:
        target: what is written to.
    """

    def __init__(self, target: Writable) -> None:
        self._target = target

    def __iadd__(self, other: SglExpr | str) -> Self:
        self._target.submit(as_expr(other))
        return self

    def __setitem__(self, name: str, value: Any) -> None:
        self._target.submit(SglSetVar(name, value))

    def set_var(self, name: str, value: Any) -> None:
        """`s[name] = value`. It takes effect in its turn, after all that was appended before."""
        self[name] = value

    @property
    def system(self) -> BoundRole:
        return BoundRole(self._target, "system")

    @property
    def user(self) -> BoundRole:
        return BoundRole(self._target, "user")

    @property
    def assistant(self) -> BoundRole:
        return BoundRole(self._target, "assistant")

    def var_scope(self, name: str) -> AbstractContextManager[None]:
        """All text appended inside becomes the variable `name`."""
        return _bracket(self._target, SglVarScopeBegin(name), SglVarScopeEnd(name))

    def fork(self, size: int = 1, position_ids_offset: Sequence[int] | None = None) -> Any:
        raise NotImplementedError

    @contextmanager
    def copy(self, position_ids_offset: Sequence[int] | None = None) -> Iterator[Self]:
        """A fork of one, joined at the end of the block: its new variables come back as lists of one element."""
        group = self.fork(1, position_ids_offset)
        yield group[0]
        group.join()


class BoundRole:
    """`s.user(x)` appends a whole message; `with s.user():` makes one of all that is appended in the block."""

    def __init__(self, target: Writable, role: str) -> None:
        self._target = target
        self._role = role

    @overload
    def __call__(self) -> AbstractContextManager[None]: ...
    @overload
    def __call__(self, expr: SglExpr | str) -> SglExpr: ...
    def __call__(self, expr: SglExpr | str | None = None) -> AbstractContextManager[None] | SglExpr:
        if expr is None:
            return _bracket(self._target, SglRoleBegin(self._role), SglRoleEnd(self._role))
        whole = message(self._role, expr)
        self._target.submit(whole)
        return SglSubmitted(whole, self._target)


@contextmanager
def _bracket(target: Writable, begin: SglExpr, end: SglExpr) -> Iterator[None]:
    """Append `begin` now and `end` at the end of the block, however it is left."""
    target.submit(begin)
    try:
        yield
    finally:
        if target.is_open:
            target.submit(end)
