"""The engines of this machine in one table: launched, watched and ended from a panel that updates itself."""

from __future__ import annotations

import html
import threading
import time
from dataclasses import asdict
from typing import Any

from sgl_jupyter.lang.config import set_default_backend
from sgl_jupyter.lifecycle import EngineHandle, engines, launch
from sgl_jupyter.lifecycle.load import load_of
from sgl_jupyter.lifecycle.logs import tail
from sgl_jupyter.lifecycle.models import available_models

from .tool import Tool, source

INTERVAL = 1.0
"""Seconds between two looks at the engines while the panel is open."""
LOG_LINES = 30


class EnginePanel(Tool):
    """A launch form, and for each engine its state, memory, load, throughput, log and the buttons that end it.

    Engines that the panel launches live as long as this kernel, or until they are terminated; not only as long as the panel.
    """

    _esm = source("engine_panel.js")

    def __init__(self) -> None:
        super().__init__()
        self._launched: list[EngineHandle] = []
        self._chosen: EngineHandle | None = None
        """The engine whose log is shown, though it may have died."""
        self._watching: threading.Thread | None = None

    def handle(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "ready":
            self.send({"kind": "models", "models": [asdict(model) for model in available_models()]})
            self._watch()
        elif kind == "launch":
            self._launch(content["model"].strip())
        elif kind == "log":
            self._chosen = self._find(content["id"])
            self._show()
        else:
            self._act(kind, self._find(content["id"]))
            self._show()

    def _launch(self, model: str) -> None:
        if not model:
            raise ValueError("name a model: a bundled one, a folder, or a hub id")
        engine = launch(model)
        self._launched.append(engine)
        self._chosen = engine
        set_default_backend(engine)
        self._show()

    def _act(self, kind: str, engine: EngineHandle) -> None:
        if kind == "stop":
            engine.stop()
        elif kind == "use":
            set_default_backend(engine)
        elif kind == "terminate":
            self._launched = [each for each in self._launched if each.id != engine.id]
            self._chosen = self._chosen if self._chosen and self._chosen.id != engine.id else None
            engine.terminate()

    def _find(self, id: str) -> EngineHandle:
        for engine in [*self._launched, *engines()]:
            if engine.id == id and engine.is_running():
                return engine
        raise LookupError("the engine has ended")

    def _watch(self) -> None:
        """Keep the page up to date until the panel is closed."""
        if self._watching is None:
            self._watching = threading.Thread(target=self._keep_showing, name="engine panel", daemon=True)
            self._watching.start()

    def _keep_showing(self) -> None:
        while not self._closed.is_set():
            with self._lock:
                self._show()
            time.sleep(INTERVAL)

    def _show(self) -> None:
        self._tell_deaths()
        self.send({"kind": "engines", "engines": [_row(engine) for engine in engines()]})
        lines = tail(self._chosen.log_path, LOG_LINES) if self._chosen else []
        self.send({"kind": "log", "name": self._chosen.name if self._chosen else "", "text": "\n".join(lines)})

    def _tell_deaths(self) -> None:
        for engine in [each for each in self._launched if not each.is_running()]:
            self._launched.remove(engine)
            how = str(engine.death()).partition(". The end of its log")[0]
            self.send({"kind": "error", "message": f"{how}: see its log"})

    def static_html(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(engine.name)}</td><td>{html.escape(engine.model)}</td><td>{engine.state}</td></tr>"
            for engine in engines()
        )
        if not rows:
            return "<em>Engine panel: no engine is running.</em>"
        return (
            f"<table><thead><tr><th>engine</th><th>model</th><th>state</th></tr></thead><tbody>{rows}</tbody></table>"
        )

    def static_text(self) -> str:
        lines = [f"{engine.name}  {engine.model}  {engine.state}" for engine in engines()]
        return "\n".join(lines) or "Engine panel: no engine is running."


def _row(engine: EngineHandle) -> dict[str, Any]:
    known = {name: getattr(engine, name) for name in ("id", "name", "model", "state")}
    return known | asdict(load_of(engine)) | {"users": engine.used_by}
