"""Follows the text of a state while it grows. Readers are independent of each other and of the writer."""

from __future__ import annotations

from sgl_jupyter.lang.executor import Executor
from sgl_jupyter.lang.interpreter import Span


class TextReader:
    """A position in the text of a state, or of one of its variables."""

    def __init__(self, executor: Executor, name: str | None) -> None:
        self._executor = executor
        self._name = name
        self._sent = 0
        self._complete = False
        self.done = False
        """No more text will come."""
        self.position = 0
        """Events in the state's log from here on tell of text not yet read."""

    def read(self) -> str:
        """What came since the last read; maybe nothing."""
        interpreter, log = self._executor.interpreter, self._executor.log
        self.position, closed = len(log.events), log.closed  # before the text is read, so that none is missed
        span = Span(0) if self._name is None else interpreter.spans.get(self._name)
        if span is None:
            self.done = closed
            return ""
        end = span.end
        piece = interpreter.text[span.start + self._sent : end]
        self._sent += len(piece)
        self._complete = end is not None
        self.done = closed or self._complete
        return piece

    def rest(self) -> str:
        """Once done: the value of a variable that is not part of the text.

        Raises the error that cut the text short, or KeyError where there is no such variable.
        """
        if not self._complete:
            self._executor.raise_error()
        if self._name is None or self._name in self._executor.interpreter.spans:
            return ""
        return str(self._executor.value(self._name))
