"""A JupyterLab server and a headless Chromium for a module of tests; each test opens notebooks in pages of its own.

Playwright keeps an event loop running in this thread while its browser lives, so the browser ends with its module.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 240_000
"""Milliseconds in which a page shows what is waited for, on a machine that has other work too."""
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}


@dataclass
class Lab:
    """A running JupyterLab that serves `folder`."""

    url: str
    token: str
    folder: Path
    browser: Browser
    pages: list[Page] = field(default_factory=list)

    def write(self, name: str, cells: list[Any]) -> Path:
        """Save a notebook of code cells (sources, or whole cells) into the served folder."""
        cells = [nbformat.v4.new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
        notebook = nbformat.v4.new_notebook(
            cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        )
        path = self.folder / name
        nbformat.write(notebook, path)
        return path

    def open(
        self, name: str, theme: str = "light", prepare: Callable[[Page], None] = lambda page: None, scale: float = 1
    ) -> Page:
        """A page with the notebook `name`, fully loaded, in the given theme. `prepare` has the page before that."""
        page = self.browser.new_page(viewport={"width": 1100, "height": 900}, device_scale_factor=scale)
        page.set_default_timeout(PATIENCE)
        self.pages.append(page)
        prepare(page)
        page.goto(f"{self.url}lab/tree/{name}?reset&token={self.token}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_function(
            "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )
        command(page, "apputils:change-theme", theme=THEMES[theme])
        command(page, "application:toggle-left-area")
        page.wait_for_function(f"document.body.dataset.jpThemeName === {THEMES[theme]!r}")
        return page


def command(page: Page, name: str, **args: Any) -> None:
    """Start one of JupyterLab's commands, as its menus do. Commands that run cells end only with them, so none is awaited."""
    page.evaluate("([name, args]) => { window.jupyterapp.commands.execute(name, args); }", [name, args])


def chromium() -> str | None:
    """The browser's program."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def running_browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium(), args=options)
        yield browser
        browser.close()


@contextmanager
def running_lab(browser: Browser, base: Path) -> Iterator[Lab]:
    """A JupyterLab that keeps all that it writes in `base`, and nothing of what its user has set."""
    folder = base / "notebooks"
    folder.mkdir()
    notification = base / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    notification.parent.mkdir(parents=True)
    notification.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    token = secrets.token_hex(16)
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--ServerApp.port=0",
         f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"],
        env=_environment(base, token), stdout=(base / "lab.log").open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        url = _wait_for_url(base / "runtime", server)
        yield Lab(url, token, folder, browser)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("NO BROWSER TESTS: no chromium on the PATH (Debian: apt-get install chromium)")
    pytest.importorskip("playwright.sync_api", reason="NO BROWSER TESTS: pip install playwright")
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def lab_server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    pytest.importorskip("jupyterlab", reason="NO BROWSER TESTS: pip install jupyterlab")
    with running_lab(browser, tmp_path_factory.mktemp("jupyterlab")) as lab:
        yield lab


@pytest.fixture
def lab(lab_server: Lab) -> Iterator[Lab]:
    """The server of the module, with the pages of this test closed at its end."""
    yield lab_server
    while lab_server.pages:
        lab_server.pages.pop().close()


def _environment(base: Path, token: str) -> dict[str, str]:
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    places = {variable: str(base / folder) for variable, folder in folders.items()}
    python_path = os.pathsep.join(map(str, [REPOSITORY, REPOSITORY / "tests" / "kernel"]))
    return {**os.environ, **places, "JUPYTER_TOKEN": token, "PYTHONPATH": python_path}


def _wait_for_url(runtime: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline and server.poll() is None:
        for info in runtime.glob("jpserver-*.json"):
            try:
                return json.loads(info.read_text())["url"]
            except (json.JSONDecodeError, KeyError):
                pass  # it is being written
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start: see {runtime.parent / 'lab.log'}")
