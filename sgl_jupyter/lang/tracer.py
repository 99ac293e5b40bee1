"""Tracing: running a program's body without a backend, to see what it appends.

Arguments that are not given and variables that would be generated are expressions then, which can be appended, but not decided on:
whatever would need their value is a `TypeError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

from sgl_jupyter.lang.document import Document
from sgl_jupyter.lang.events import Text
from sgl_jupyter.lang.group import ProgramStateGroup, check_join_mode
from sgl_jupyter.lang.ir import (
    SglConcateAndAppend,
    SglConstantText,
    SglExpr,
    SglFork,
    SglGetForkItem,
    SglRoleBegin,
    SglRoleEnd,
    SglVariable,
    role_after,
    single_nodes,
    variables_of,
)
from sgl_jupyter.lang.markup import ChatTemplate
from sgl_jupyter.lang.writer import Writer


@dataclass(frozen=True, eq=False, repr=False)
class TraceNode:
    """An expression at its place: it is appended to what `prev_node` made."""

    node_id: int
    expr: SglExpr
    prev_node: TraceNode | None

    def __repr__(self) -> str:
        return repr(self.expr)

    def print_graph_dfs(self) -> str:
        """This node and all that come before it, one a line, in their order."""
        lines: dict[int, str] = {}
        todo: list[TraceNode | None] = [self]
        while todo:
            node = todo.pop()
            if node is None or node.node_id in lines:
                continue
            before = "" if node.prev_node is None else f"%{node.prev_node.node_id} + "
            lines[node.node_id] = f"%{node.node_id} = {before}{node.expr!r}\n"
            todo += [node.prev_node, node.expr.source if isinstance(node.expr, SglVariable) else None]
        return "".join(line for _, line in sorted(lines.items()))


class StopTracing(Exception):
    """The beginning of the program that is the same for all arguments is over."""


class TracerProgramState(Writer):
    """Takes the place of the `ProgramState`, and keeps what is appended.

    Args:
        only_prefix: end with `StopTracing` at the first thing that is not constant text.
    """

    def __init__(
        self,
        template: ChatTemplate,
        only_prefix: bool = False,
        parent: TracerProgramState | None = None,
        role: str | None = None,
    ) -> None:
        super().__init__(self)
        self.nodes: list[TraceNode] = []
        self.last_node: TraceNode | None = None
        self.variables: dict[str | None, SglVariable] = {}
        self.child_states: list[TracerProgramState] = []
        self.ret_value: Any = None
        self.is_open = True
        self._only_prefix = only_prefix
        self._document = Document(template)
        self._role = role
        self._numbers: Iterator[int] = parent._numbers if parent else iter(range(2**63))

    @property
    def constant_prefix(self) -> str:
        """The text so far, where all of it is constant."""
        return self._document.text

    # Writing, as to a ProgramState

    def submit(self, expr: SglExpr) -> None:
        for node in single_nodes(expr, self):
            self._role = role_after([node], self._role)
            if isinstance(node, SglConstantText):
                self._record(node)
                self._document.append(node.value, "prompt")
            elif isinstance(node, SglRoleBegin | SglRoleEnd):
                self._record_markup(node)
            else:
                self._record_unknown(node)

    def fork(self, size: int = 1, position_ids_offset: Sequence[int] | None = None) -> TracedGroup:
        self._record_unknown(SglFork(size))
        children = []
        for index in range(size):
            child = TracerProgramState(self._document.template, parent=self, role=self._role)
            child._document = self._document.fork()
            child.variables = dict(self.variables)
            child.last_node = self.last_node
            child._record(SglGetForkItem(index))
            children.append(child)
        self.child_states += children
        return TracedGroup(children, self)

    def end(self) -> None:
        self.is_open = False

    # Reading

    def __getitem__(self, name: str | None) -> SglVariable:
        return self.variables[name]

    def get_var(self, name: str | None) -> SglVariable:
        return self[name]

    def __contains__(self, name: str | None) -> bool:
        return name in self.variables

    def sync(self) -> None:
        """There is nothing to wait for."""

    def _unknown(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a program's text is not known while it is traced")

    text = messages = text_iter = text_async_iter = get_meta_info = get_parsed = error = _unknown

    # Recording

    def _record(self, expr: SglExpr) -> None:
        self.last_node = TraceNode(next(self._numbers), expr, self.last_node)
        self.nodes.append(self.last_node)

    def _record_markup(self, node: SglRoleBegin | SglRoleEnd) -> None:
        """The chat template's text, as constants."""
        log = self._document.log
        known = len(log.events)
        if isinstance(node, SglRoleBegin):
            self._document.open_message(node.role)
        else:
            self._document.close_message(node.role)
        for event in log.events[known:]:
            if isinstance(event, Text):
                self._record(SglConstantText(event.text))

    def _record_unknown(self, node: SglExpr) -> None:
        if self._only_prefix:
            raise StopTracing
        self._record(node)
        assert self.last_node is not None
        for name in variables_of(node):
            self.variables[name] = SglVariable(name, self.last_node)


class TracedGroup(ProgramStateGroup):
    """The forks of a traced state."""

    def __init__(self, states: list[Any], src_state: Any) -> None:
        self.states = states
        self.src_state = src_state

    def join(self, mode: str = "gather_variable") -> None:
        check_join_mode(mode)
        source = self.src_state
        if mode == "concate_and_append":
            source._record_unknown(SglConcateAndAppend(len(self.states)))
        for name in dict.fromkeys(name for state in self.states for name in state.variables):
            if name is not None and name not in source.variables:
                source.variables[name] = [state.variables.get(name) for state in self.states]
        for state in self.states:
            state.end()


_tracer: ContextVar[TracerProgramState | None] = ContextVar("tracer", default=None)


def current_tracer() -> TracerProgramState | None:
    """The state that traces in this context, if one does: programs called there are traced with it."""
    return _tracer.get()


def trace(body: Callable[..., Any], arguments: Mapping[str, Any], state: TracerProgramState) -> TracerProgramState:
    """Run a body with `state`. Raises what the body raises; TypeError where it depends on what is not known."""
    token = _tracer.set(state)
    try:
        state.ret_value = body(state, **arguments)
    finally:
        _tracer.reset(token)
        state.end()
    return state


def constant_prefix(body: Callable[..., Any], arguments: Mapping[str, Any], template: ChatTemplate) -> str:
    """The text with which every run of a program begins. The body is run as far as the first thing that is not constant."""
    state = TracerProgramState(template, only_prefix=True)
    with suppress(StopTracing, TypeError, AttributeError, LookupError, ValueError):
        trace(body, arguments, state)
    return state.constant_prefix
