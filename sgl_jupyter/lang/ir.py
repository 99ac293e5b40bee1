"""Expressions: what a program appends to its state.

An expression is immutable and says only what is wanted; the interpreter gives it meaning. `+` joins expressions and strings
into flat lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from sgl_jupyter.backends.base import Image, Video

if TYPE_CHECKING:
    from sgl_jupyter.lang.choices import ChoicesSamplingMethod
    from sgl_jupyter.lang.tracer import TraceNode

REGEX_INT = r"[-+]?[0-9]+[ \n]*"
REGEX_FLOAT = r"[-+]?[0-9]*\.?[0-9]+[ \n]*"
REGEX_BOOL = r"(True|False)"
REGEX_STR = r"\"[\w\d\s]*\""


class SglExpr:
    """Anything that can be appended to a state."""

    def __add__(self, other: SglExpr | str) -> SglExpr:
        return SglExprList((*flatten(self), *flatten(as_expr(other))))

    def __radd__(self, other: SglExpr | str) -> SglExpr:
        return SglExprList((*flatten(as_expr(other)), *flatten(self)))

    def __format__(self, spec: str) -> NoReturn:
        raise TypeError(f"{self!r} cannot stand in an f-string, which is text at once: join with + instead")


@dataclass(frozen=True, eq=False, repr=False)
class SglConstantText(SglExpr):
    value: str

    def __repr__(self) -> str:
        return f"Constant({self.value!r})"


@dataclass(frozen=True, eq=False, repr=False)
class SglGen(SglExpr):
    """A generation.

    `overrides` are the fields of `SamplingParams` that differ from the program's defaults; `extra_stop` are strings that end it
    beside those. `parse` makes an object of its text. `reasoning` names the kind of model whose reasoning is kept out of the text.
    """

    name: str | None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    extra_stop: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    reasoning: str | None = None

    def __repr__(self) -> str:
        return f"Gen({self.name!r})"


@dataclass(frozen=True, eq=False, repr=False)
class SglSelect(SglExpr):
    name: str | None
    choices: tuple[str, ...]
    choices_method: ChoicesSamplingMethod

    def __repr__(self) -> str:
        return f"Select({self.name}, choices={list(self.choices)}, choices_method={self.choices_method})"


@dataclass(frozen=True, eq=False, repr=False)
class SglImage(SglExpr):
    """An image; `source` is what the program named it by. While a program is traced it may be unknown."""

    source: Any
    media: Image | None

    def __repr__(self) -> str:
        return f"SglImage({self.source})"


@dataclass(frozen=True, eq=False, repr=False)
class SglVideo(SglExpr):
    """A video, by at most `num_frames` of its frames."""

    source: Any
    num_frames: int
    media: Video | None

    def __repr__(self) -> str:
        return f"SglVideo({self.source}, {self.num_frames})"


@dataclass(frozen=True, eq=False, repr=False)
class SglRoleBegin(SglExpr):
    role: str

    def __repr__(self) -> str:
        return f"RoleBegin({self.role})"


@dataclass(frozen=True, eq=False, repr=False)
class SglRoleEnd(SglExpr):
    role: str

    def __repr__(self) -> str:
        return f"RoleEnd({self.role})"


@dataclass(frozen=True, eq=False, repr=False)
class SglVarScopeBegin(SglExpr):
    name: str

    def __repr__(self) -> str:
        return f"VarScopeBegin({self.name!r})"


@dataclass(frozen=True, eq=False, repr=False)
class SglVarScopeEnd(SglExpr):
    name: str

    def __repr__(self) -> str:
        return f"VarScopeEnd({self.name!r})"


@dataclass(frozen=True, eq=False, repr=False)
class SglSetVar(SglExpr):
    """Sets a variable in its turn, so that it is neither overtaken nor overwritten by generations before it."""

    name: str
    value: Any

    def __repr__(self) -> str:
        return f"SetVar({self.name!r}, {self.value!r})"


@dataclass(frozen=True, eq=False, repr=False)
class SglCommitLazy(SglExpr):
    """Has the server compute and cache the text so far."""

    def __repr__(self) -> str:
        return "CommitLazy()"


@dataclass(frozen=True, eq=False, repr=False)
class SglExprList(SglExpr):
    expr_list: tuple[SglExpr, ...]

    def __repr__(self) -> str:
        return f"ExprList({list(self.expr_list)})"


@dataclass(frozen=True, eq=False, repr=False)
class SglSubmitted(SglExpr):
    """`expr` as returned by `s.user(expr)`, which has appended it to `owner` already.

    Appended to its owner again, as in `s += s.user(expr)`, it adds nothing; to any other state it is `expr`.
    """

    expr: SglExpr
    owner: object

    def __repr__(self) -> str:
        return repr(self.expr)


class Unknown(SglExpr):
    """While a program is traced: an expression that stands for a value which is not known yet."""

    def _refuse(self, *_: Any) -> NoReturn:
        raise TypeError(f"{self!r} has no value while the program is traced, so nothing can depend on it")

    __bool__ = __len__ = __iter__ = __int__ = __float__ = __getitem__ = __contains__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = object.__hash__


@dataclass(frozen=True, eq=False, repr=False)
class SglArgument(Unknown):
    """An argument of the program that is not given."""

    name: str
    value: Any = None

    def __repr__(self) -> str:
        return f"Argument(name={self.name}, value={self.value})"


@dataclass(frozen=True, eq=False, repr=False)
class SglVariable(Unknown):
    """A variable, and the node that sets it."""

    name: str | None
    source: TraceNode

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, source=%{self.source.node_id})"


@dataclass(frozen=True, eq=False, repr=False)
class SglFork(SglExpr):
    number: int

    def __repr__(self) -> str:
        return f"Fork(number={self.number})"


@dataclass(frozen=True, eq=False, repr=False)
class SglGetForkItem(SglExpr):
    index: int

    def __repr__(self) -> str:
        return f"GetForkItem(index={self.index})"


@dataclass(frozen=True, eq=False, repr=False)
class SglConcateAndAppend(SglExpr):
    """The texts of forks, appended to their parent's."""

    number: int

    def __repr__(self) -> str:
        return f"ConcatenateAndAppend(number={self.number})"


def as_expr(value: SglExpr | str) -> SglExpr:
    """`value` as an expression. Raises ValueError for None and TypeError for what is neither text nor an expression."""
    if isinstance(value, SglExpr):
        return value
    if isinstance(value, str):
        return SglConstantText(value)
    if value is None:
        raise ValueError("Tried to append None to state.")
    raise TypeError(
        f"cannot append {value!r}: text or an expression is needed, not {type(value).__name__}; try str(...)"
    )


def flatten(expr: SglExpr) -> Iterator[SglExpr]:
    """The single expressions of a list, or the expression itself."""
    if isinstance(expr, SglExprList):
        yield from expr.expr_list
    else:
        yield expr


def single_nodes(expr: SglExpr, owner: object) -> Iterator[SglExpr]:
    """The expressions of a list, without those that were appended to `owner` when they were made."""
    for node in flatten(expr):
        if not isinstance(node, SglSubmitted):
            yield node
        elif node.owner is not owner:
            yield from flatten(node.expr)


def variables_of(expr: SglExpr) -> tuple[str | None, ...]:
    """The variables that have their values once `expr` is done."""
    if isinstance(expr, SglGen) and expr.reasoning is not None:
        return (expr.name, reasoning_name(expr.name))
    if isinstance(expr, SglGen | SglSelect | SglVarScopeEnd | SglSetVar):
        return (expr.name,)
    return ()


def reasoning_name(name: str | None) -> str:
    """The variable that holds the reasoning of the generation `name`."""
    return f"{name}_reasoning_content"


def role_after(nodes: Iterable[SglExpr], role: str | None) -> str | None:
    """The role that is open after `nodes`, where `role` was open before.

    Raises:
        ValueError: roles are nested, or closed in the wrong order.
    """
    for node in nodes:
        match node:
            case SglRoleBegin(opened):
                if role is not None:
                    raise ValueError(f"Nested roles are not allowed: {opened} begins before {role} has ended")
                role = opened
            case SglRoleEnd(closed):
                if role != closed:
                    raise ValueError(f"{closed} ends here, but {role or 'no role'} is open")
                role = None
    return role
