"""The body of a `%%sgl` cell: Python in which an expression that stands alone is appended to the state `s`."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from itertools import takewhile
from types import CodeType
from typing import Any

from sgl_jupyter.lang.ir import SglExpr
from sgl_jupyter.lang.state import ProgramState

APPEND = "_sgl_append"
"""The name under which a running body finds what appends."""


class CellSyntaxError(Exception):
    """The cell is not Python. It shows as Python's SyntaxError does in any cell, with the cell's own lines and no others."""

    def __init__(self, shell: Any, error: SyntaxError) -> None:
        super().__init__(str(error))
        self._shown: list[str] = shell.SyntaxTB.structured_traceback(type(error), error, [])

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback. (It shows that of a SyntaxError with all our lines.)"""
        return self._shown


@dataclass(frozen=True)
class Body:
    """A compiled body.

    Statements such as `user("Hi")` are appended to the state wherever they stand, in loops and branches too, but not in the
    functions and classes that the body defines. Other values are left alone.
    """

    code: CodeType
    shows_last: bool
    """Whether the body ends with an expression, whose value a notebook shows."""

    @classmethod
    def compile(cls, shell: Any, line: str, source: str) -> Body:
        """Compile `source`, which may hold magics and shell commands as any cell. Raises CellSyntaxError."""
        try:
            return cls._compile(shell, line, source)
        except SyntaxError as error:
            raise CellSyntaxError(shell, error) from None

    @classmethod
    def _compile(cls, shell: Any, line: str, source: str) -> Body:
        number = len(shell.history_manager.input_hist_parsed) - 1  # versions of IPython count up before or after
        # Line numbers are those that the user sees: the magic's line is the first, and IPython drops blank lines after it.
        blank = "\n" * sum(1 for _ in takewhile(str.isspace, source.splitlines(keepends=True)))
        python = blank + shell.transform_cell(source)
        name = shell.compile.cache(f"# %%sgl {line}\n{python}", number)
        tree = ast.parse(f"\n{python}", filename=name)
        appending = ast.fix_missing_locations(_AppendExpressions().visit(tree))
        code = compile(appending, name, "exec", flags=shell.compile.flags, dont_inherit=True)
        return cls(code, shows_last=bool(tree.body) and isinstance(tree.body[-1], ast.Expr))

    def run(self, state: ProgramState, namespace: dict[str, Any]) -> Any:
        """Run the body with `s` as its state. Returns the value of its last line, if there is one to show."""
        __tracebackhide__ = True
        appender = _Appender(state)
        namespace.update({"s": state, APPEND: appender})
        try:
            exec(self.code, namespace)
        finally:
            namespace.pop(APPEND, None)
        shown = self.shows_last and not isinstance(appender.last, SglExpr | ProgramState)
        return appender.last if shown else None


class _Appender:
    """What an expression statement does with its value."""

    def __init__(self, state: ProgramState) -> None:
        self._state = state
        self.last: Any = None

    def __call__(self, value: Any) -> None:
        __tracebackhide__ = True
        self.last = value
        if isinstance(value, SglExpr):
            self._state += value


class _AppendExpressions(ast.NodeTransformer):
    """Passes the value of each expression statement to the appender."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        call = ast.Call(ast.Name(APPEND, ast.Load()), [node.value], [])
        return ast.copy_location(ast.Expr(ast.copy_location(call, node.value)), node)

    def _leave(self, node: ast.AST) -> ast.AST:
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _leave
