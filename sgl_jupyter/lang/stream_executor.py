"""`state.stream_executor`: what programs and tests written for SGLang read of a state's inside."""

from __future__ import annotations

from typing import Any

from sgl_jupyter.backends.base import BaseBackend
from sgl_jupyter.lang.executor import Executor
from sgl_jupyter.lang.markup import ChatTemplate


class StreamExecutor:
    """A view of a state as it is now, under SGLang's names. Nothing here waits, and nothing is changed by changing it."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    @property
    def variables(self) -> dict[str | None, Any]:
        return dict(self._executor.document.variables)

    @property
    def meta_info(self) -> dict[str | None, dict[str, Any] | None]:
        return dict(self._executor.document.meta_info)

    @property
    def text_(self) -> str:
        return self._executor.document.text

    @property
    def messages_(self) -> list[dict[str, Any]]:
        return list(self._executor.document.messages)

    @property
    def cur_role(self) -> str | None:
        """The role of the open message."""
        return self._executor.document.role

    @property
    def chat_template(self) -> ChatTemplate:
        return self._executor.document.template

    @property
    def backend(self) -> BaseBackend:
        return self._executor.interpreter.backend

    @property
    def is_finished(self) -> bool:
        """Whether the state has ended, however that was."""
        return self._executor.closed.done()

    @property
    def error_(self) -> BaseException | None:
        return self._executor.error
