"""Follows the text of a state while it grows. Readers are independent of each other and of the writer."""

from __future__ import annotations

from sgl_jupyter.lang.document import Span
from sgl_jupyter.lang.executor import Executor


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
        document, log = self._executor.document, self._executor.log
        self.position, closed = len(log.events), log.closed  # before the text is read, so that none is missed
        span = document.spans.get(self._name)
        if self._name is None:
            span = Span(0)
        elif span is None:
            self.done = closed
            return ""
        self._complete = span.end is not None
        piece = document.read(span, self._sent)
        self._sent += len(piece)
        self.done = closed or self._complete
        return piece

    def rest(self) -> str:
        """Once done: the value of a variable that is not part of the text.

        Raises the error that cut the text short, or KeyError where there is no such variable.
        """
        if not self._complete:
            self._executor.raise_error()
        if self._name is None or self._name in self._executor.document.spans:
            return ""
        return str(self._executor.value(self._name))
