"""What the tools have in common: how one is shown, how it talks to its page, and what it leaves behind.

Invariant: an output holds a live widget only while the tool is open and somebody watches; else it holds plain HTML.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anywidget
from IPython import get_ipython
from IPython.display import DisplayHandle, display

HERE = Path(__file__).parent


def source(name: str) -> str:
    """A tool's JavaScript, after what all of them use."""
    return (HERE / "dom.js").read_text() + (HERE / name).read_text()


class Tool(anywidget.AnyWidget):
    """A widget whose messages are handled one at a time, whichever thread they come on.

    Text that grows travels by messages, never by traits, and only once the page said that it is `ready`: what is sent to a
    page that is not there is lost.
    """

    _css = HERE / "style.css"

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._handle: DisplayHandle | None = None
        self._closed = threading.Event()
        self.on_msg(self._receive)
        # ipykernel 7.4 hands what a page sends to the shell on which the kernel sent last, where a running cell holds it up,
        # and not to the one that the page chose for it.
        if self.comm is not None:
            vars(self.comm)["_reply_subshell_for"] = lambda data, chosen: chosen

    def static_html(self) -> str:
        """What stands in the notebook when the tool is not there."""
        raise NotImplementedError

    def static_text(self) -> str:
        """The same without markup."""
        raise NotImplementedError

    def handle(self, kind: str, content: dict[str, Any]) -> None:
        """Act on a message of the page. An error that it raises is shown there."""
        raise NotImplementedError

    def close(self) -> None:
        """End the tool; plain HTML takes its place."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self._handle is not None:
            self._handle.update(self._static(), raw=True)
        super().close()

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        with self._lock:
            try:
                self.handle(content["kind"], content)
            except Exception as error:
                self.send({"kind": "error", "message": str(error) or type(error).__name__})

    def _ipython_display_(self) -> None:
        if self._closed.is_set() or not is_watched():
            display(self._static(), raw=True)
            return
        live = self._repr_mimebundle_()
        data, metadata = live if isinstance(live, tuple) else (live or {}, {})
        self._handle = display(data | self._static(), metadata=metadata, raw=True, display_id=True)

    def _static(self) -> dict[str, str]:
        return {"text/html": self.static_html(), "text/plain": self.static_text()}


def is_watched() -> bool:
    """Whether a front end with a user before it shows the outputs: one that takes input."""
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(getattr(kernel, "_allow_stdin", False))
