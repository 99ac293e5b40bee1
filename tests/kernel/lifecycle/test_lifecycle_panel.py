"""The engine panel on engines that live and die."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

pytest.importorskip("anywidget", reason="NO WIDGET TESTS: pip install anywidget")

from sgl_jupyter.widgets import EnginePanel


class Page:
    """What the page of a panel is told."""

    def __init__(self, panel: EnginePanel) -> None:
        self.told: list[dict[str, Any]] = []
        self._panel = panel
        panel.send = self.told.append  # type: ignore[method-assign]

    def send(self, **content: str) -> None:
        self._panel._receive(None, content, None)

    def latest(self, kind: str) -> dict[str, Any]:
        return next(message for message in reversed(self.told) if message["kind"] == kind)

    def wait_for_error(self) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            self._panel._show()
            if errors := [message["message"] for message in self.told if message["kind"] == "error"]:
                (error,) = errors
                return error
            time.sleep(0.05)
        raise TimeoutError("no error was told")


@pytest.fixture
def panel() -> EnginePanel:
    return EnginePanel()


def test_an_engine_that_dies_while_loading_is_told_with_its_log(panel: EnginePanel):
    page = Page(panel)
    page.send(kind="launch", model="broken")
    assert page.wait_for_error() == "'broken' exited with code 1: see its log"
    assert "no such model: broken" in page.latest("log")["text"]
    assert page.latest("engines")["engines"] == []


def test_an_engine_that_is_killed_is_told_and_one_that_is_ended_from_the_panel_is_not(panel: EnginePanel):
    page = Page(panel)
    page.send(kind="launch", model="ok")
    (engine,) = panel._launched
    engine.wait(20)
    page.send(kind="log", id=engine.id)
    assert page.latest("engines")["engines"][0]["users"] == "1 unnamed"
    page.send(kind="terminate", id=engine.id)
    assert (page.latest("engines")["engines"], page.latest("log")["text"]) == ([], "")
    page.send(kind="launch", model="ok")
    os.kill(panel._launched[0].pid, signal.SIGKILL)
    assert page.wait_for_error() == "'ok' was ended by signal 9 (Killed): see its log"
