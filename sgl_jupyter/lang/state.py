"""The state of a running program, as the program's author and its readers see it.

Appending never waits; reading waits for what it reads, and raises the error the program failed with, if it did.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from sgl_jupyter.lang.events import INTERRUPTIBLE, EventLog
from sgl_jupyter.lang.executor import Executor
from sgl_jupyter.lang.group import ProgramStateGroup
from sgl_jupyter.lang.ir import (
    SglCommitLazy,
)
from sgl_jupyter.lang.reader import TextReader
from sgl_jupyter.lang.stream_executor import StreamExecutor
from sgl_jupyter.lang.writer import Writer


class ProgramState(Writer):
    """The text of a program and its variables.

    `s += x` appends text or an expression. `s[name]` reads a variable; `s[name] = value` sets one. All else that a program
    needs is Python's own.

    Args:
        followed: the program still runs elsewhere. Reading then waits until the program has come as far as is needed, and
            `text_iter` streams.
        program: the name of the program that runs, if it is one.
        arguments: what it was called with, by the names of its parameters.
    """

    def __init__(
        self,
        executor: Executor,
        followed: bool = False,
        program: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(executor)
        self._executor = executor
        self._followed = followed
        self.program = program
        self.arguments = dict(arguments or {})
        self.ret_value: Any = None
        """What the program returned."""

    # Writing

    def fork(self, size: int = 1, position_ids_offset: Sequence[int] | None = None) -> ProgramStateGroup:
        """`size` copies that go on in parallel, once all that was appended so far is done.

        The server is asked to compute their common text first, so that they share it. `position_ids_offset` is SGLang's, where
        it has no effect either.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self.sync()
        if size > 1 and self._executor.document.text and self._executor.is_open:
            self._executor.submit(SglCommitLazy())
            self.sync()
        return ProgramStateGroup([ProgramState(child) for child in self._executor.fork(size)], self)

    def end(self) -> None:
        """No more will be appended. Programs do this by themselves when they return."""
        self._executor.end()

    def cancel(self) -> None:
        """Stop the program and the request that it waits for. Text and variables so far stay readable."""
        self._executor.cancel()

    def fail(self, error: BaseException) -> None:
        """End the program with `error`, which every later use of the state raises."""
        self._executor.fail(error)

    # Reading

    @property
    def finished(self) -> bool:
        """Whether the program has ended as it should, and not stopped or failed. Never waits."""
        return self._executor.status == "finished"

    @property
    def stream_executor(self) -> StreamExecutor:
        """The inside of the state, by SGLang's names."""
        return StreamExecutor(self._executor)

    @property
    def log(self) -> EventLog:
        """All that happened, as it happens: `for event in state.log`, or `async for event in state.log`."""
        return self._executor.log

    def __getitem__(self, name: str | None) -> Any:
        return self._executor.value(name, self._followed)

    def get_var(self, name: str | None) -> Any:
        """`s[name]`."""
        return self[name]

    def __contains__(self, name: str | None) -> bool:
        """Whether the variable is set, or will be by what was appended so far. Never waits."""
        return self._executor.sets(name)

    def get_meta_info(self, name: str | None) -> dict[str, Any] | None:
        """What the server told about the variable's generation: finish reason, token counts, log-probabilities.

        None if there is no such variable. For `n` samples it is the first one's, with all of them under "samples".
        """
        try:
            self[name]
        except KeyError:
            return None
        return self._executor.document.meta_info.get(name)

    def get_parsed(self, name: str | None) -> Any:
        """The object that a variable stands for which was generated with a `json_schema` or `dtype`; the variable is its text.

        For `n` samples it is a list of objects.

        Raises:
            TypeError: the variable was generated with neither.
            ValueError: its text is no such object, since the generation was cut short.
        """
        value, document = self[name], self._executor.document
        parse = document.parsers.get(name)
        if parse is None:
            raise TypeError(f"{name!r} has no type: give its gen a json_schema or a dtype")
        try:
            return [parse(text) for text in value] if isinstance(value, list) else parse(value)
        except (ValueError, TypeError, KeyError) as error:
            reason = (document.meta_info.get(name) or {}).get("finish_reason") or {}
            hint = ": it needs more max_tokens" if reason.get("type") == "length" else ""
            raise ValueError(f"{name!r} is not what its schema says{hint} ({error}): {value!r}") from error

    def text(self) -> str:
        """The whole text: all that was appended and generated, markup included."""
        self.sync()
        return self._executor.document.text

    def messages(self) -> list[dict[str, Any]]:
        """The messages so far, as `{"role": ..., "content": ...}`. Text outside of roles is in none of them."""
        self.sync()
        return list(self._executor.document.messages)

    def sync(self) -> None:
        """Wait until all that was appended is done."""
        self._executor.wait(self._followed)
        self._executor.raise_error()

    def error(self) -> BaseException | None:
        """The error that the program failed with, or None, once all that was appended is done."""
        self._executor.wait(self._followed)
        return self._executor.error

    def text_iter(self, var_name: str | None = None) -> Iterator[str]:
        """The text, or that of one variable, piece by piece as it arrives.

        It streams for `run(stream=True)`; otherwise it comes in one piece. There can be any number of readers. An error of the
        program is raised after the last piece.

        Raises:
            KeyError: the program ended without setting `var_name`.
        """
        if not self._followed:
            yield self.text() if var_name is None else self[var_name]
            return
        reader = TextReader(self._executor, var_name)
        try:
            while not reader.done:
                if piece := reader.read():
                    yield piece
                elif not reader.done:
                    self.log.wait(reader.position, INTERRUPTIBLE)
        except KeyboardInterrupt:
            self.cancel()
            raise
        if rest := reader.rest():
            yield rest

    async def text_async_iter(self, var_name: str | None = None, return_meta_data: bool = False) -> AsyncIterator[Any]:
        """`text_iter` for coroutines, always streaming; with `return_meta_data`, pairs of text and the meta_info so far."""
        meta_info = self._executor.document.meta_info
        reader = TextReader(self._executor, var_name)
        while not reader.done:
            if piece := reader.read():
                yield (piece, meta_info.get(var_name)) if return_meta_data else piece
            elif not reader.done:
                await self.log.wait_async(reader.position)
        if rest := reader.rest():
            yield (rest, meta_info.get(var_name)) if return_meta_data else rest

    def __repr__(self) -> str:
        return f"ProgramState({self._executor.status})\n{self._executor.document.text}"
