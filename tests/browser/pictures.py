"""The pictures of docs/images, taken anew in a real JupyterLab on the bundled model: `python -m tests.browser.pictures [NAME...]`.

Each is taken on a light and on a dark theme, as NAME.png and NAME-dark.png. To show text that is still arriving, the engine is
held, and let go a moment at a time, until there is enough of it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from .conftest import PATIENCE, REPOSITORY, THEMES, Lab, command, running_browser, running_lab

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

IMAGES = REPOSITORY / "docs" / "images"
SCALE = 2
"""Pixels of a picture for one of the page."""
COLOURS = 128
MOMENT = 0.05
"""For which an engine that is held is let go, in seconds."""

LAUNCH = """%load_ext sgl_jupyter
import sgl_jupyter as sgl
from sgl_jupyter import assistant, gen, system, user
from sgl_jupyter.widgets import EnginePanel, Playground, TokenInspector
engine = sgl.launch("tiny-chat").wait()
sgl.set_default_backend(engine)
print("pid", engine.pid, engine.endpoint)"""
CONVERSATION = """%%sgl qa --temperature 0
system("You are a helpful assistant.")
user("Please give me a list of 3 countries and their capitals.")
assistant(gen("first_answer", max_tokens=512))
user("Please give me another list of 3 countries and their capitals.")
assistant(gen("second_answer", max_tokens=512))"""
TOOL = """%%sgl --temperature 0
question = "What is 2 * 2?"
assistant(f"To answer this question: {question}. I need to use a " + gen("tool", choices=["calculator", "search engine"]) + ". ")
if s["tool"] == "calculator":
    assistant("The math expression is: " + gen("expression"))"""
FORKS = """%%sgl --temperature 0
assistant("Here are two tips for staying healthy: 1. Balanced Diet. 2. Regular Exercise.\\n\\n")
forks = s.fork(2)
for i, f in enumerate(forks):
    f += assistant(f"Now, expand tip {i + 1} into a paragraph:\\n" + gen("detailed_tip", max_tokens=256, stop="\\n\\n"))
forks.join()
assistant("To summarize the above two tips, I can say:\\n" + gen("summary", max_tokens=512))"""
BATCH = """@sgl.function
def capital(s, country):
    s += user(f"What is the capital of {country}?")
    s += assistant(gen("answer", stop="\\n"))

capital.run_batch([{"country": name} for name in ("France", "Japan", "Kenya", "Peru")], temperature=0)"""
SHADES = """%%sgl --tokens --temperature 1 --seed 2
user("List some countries and their capitals.")
assistant(gen("answer"))"""
INSPECTOR = """@sgl.function
def countries(s):
    s += user("List some countries and their capitals.")
    s += assistant(gen("answer", return_logprob=True, top_logprobs_num=5, return_text_in_logprobs=True))

inspector = TokenInspector(countries.run(temperature=1, seed=2), "answer")
inspector"""
PANEL = """panel = EnginePanel()
panel"""
WORK = """%%sgl --bg -q
assistant(gen("story", max_tokens=3000, ignore_eos=True))"""
PLAYGROUND = """playground = Playground()
playground"""


class Album:
    """Opens notebooks on one theme, and keeps the pictures of them."""

    def __init__(self, lab: Lab, theme: str) -> None:
        self._lab = lab
        self._theme = theme
        self._engine = 0

    def open(self, *cells: str) -> Page:
        """A notebook of these cells on an engine, of which the first has been run."""
        folder = tempfile.mkdtemp(dir=self._lab.folder)  # a notebook of its own, and so a kernel
        name = f"{Path(folder).name}/capitals.ipynb"
        self._lab.write(name, [LAUNCH, *cells])
        page = self._lab.open(name, self._theme, scale=SCALE)
        printed = run(page, until="pid", number=0).get_by_text("pid").last.inner_text()
        self._engine = int(printed.split("pid")[1].split()[0])
        return page

    @contextmanager
    def running_until(self, page: Page, text: str) -> Iterator[Locator]:
        """The second cell, running, with an engine that is held as soon as the output has `text`."""
        os.kill(self._engine, signal.SIGSTOP)
        run(page, until="waiting")
        try:
            deadline = time.monotonic() + PATIENCE / 1000
            while cell(page, 1).get_by_text(text).count() == 0:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no {text!r} was generated")
                os.kill(self._engine, signal.SIGCONT)
                time.sleep(MOMENT)
                os.kill(self._engine, signal.SIGSTOP)
            page.wait_for_timeout(500)  # what was under way arrives
            yield cell(page, 1)
        finally:
            os.kill(self._engine, signal.SIGCONT)

    def keep(self, name: str, what: Page | Locator) -> None:
        """Take a picture, in few colours, since all of it is text."""
        path = IMAGES / f"{name}{'-dark' if self._theme == 'dark' else ''}.png"
        what.screenshot(path=path)
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(path.relative_to(REPOSITORY), f"{path.stat().st_size / 1000:.0f} kB", flush=True)


def cell(page: Page, number: int) -> Locator:
    return page.locator(".jp-CodeCell").nth(number)


def run(page: Page, until: str = "", number: int = 1) -> Locator:
    """Run the cell; return it once its output has the text `until` and, without one, once it has ended."""
    page.evaluate("number => { jupyterapp.shell.currentWidget.content.activeCellIndex = number; }", number)
    command(page, "notebook:run-cell")
    shown = cell(page, number)
    if until:
        shown.locator(".jp-OutputArea-output").get_by_text(until).first.wait_for()
    else:
        shown.locator(".jp-InputPrompt", has_text=re.compile(r"\[\d+\]")).wait_for()
    return shown


def conversation(album: Album) -> None:
    page = album.open(CONVERSATION, TOOL)
    for number in (1, 2):
        run(page, number=number)
    cell(page, 1).evaluate("cell => cell.scrollIntoView()")
    album.keep("sgl-cell", page)


def streaming(album: Album) -> None:
    with album.running_until(album.open(CONVERSATION), "Berlin") as shown:
        album.keep("streaming", shown)


def stopped(album: Album) -> None:
    page = album.open(CONVERSATION)
    with album.running_until(page, "Berlin") as shown:
        command(page, "notebook:interrupt-kernel")
        shown.get_by_text("Stopped.").wait_for()
        album.keep("stopped", shown)


def simple(name: str, source: str) -> Callable[[Album], None]:
    def picture(album: Album) -> None:
        album.keep(name, run(album.open(source)))

    return picture


def inspector(album: Album) -> None:
    page = album.open(INSPECTOR)
    tool = run(page).locator(".sgl-tool")
    tool.locator(".sgl-token").nth(2).click()
    album.keep("token-inspector", tool)


def playground(album: Album) -> None:
    page = album.open(PLAYGROUND)
    tool = run(page).locator(".sgl-tool")
    tool.get_by_label("prompt").fill("List some countries and their capitals.")
    tool.get_by_label("samples").fill("3")
    tool.get_by_label("prompt").press("Control+Enter")
    tool.get_by_text("done in").wait_for()
    album.keep("playground", tool)


def engine_panel(album: Album) -> None:
    page = album.open(PANEL, WORK)
    tool = run(page).locator(".sgl-tool")
    tool.get_by_role("button", name="log").click()
    run(page, number=2)
    page.wait_for_timeout(9000)  # for the plot to grow
    album.keep("engine-panel", tool)


SCENES: dict[str, Callable[[Album], None]] = {
    "sgl-cell": conversation,
    "streaming": streaming,
    "stopped": stopped,
    "forks": simple("forks", FORKS),
    "batch": simple("batch", BATCH),
    "tokens": simple("tokens", SHADES),
    "playground": playground,
    "token-inspector": inspector,
    "engine-panel": engine_panel,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Takes the pictures of docs/images anew.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (all): {', '.join(SCENES)}")
    names = parser.parse_args().names or SCENES
    with tempfile.TemporaryDirectory() as base, running_browser() as browser, running_lab(browser, Path(base)) as lab:
        for theme in THEMES:
            for name in names:
                SCENES[name](Album(lab, theme))
                page = lab.pages.pop()
                page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
                page.close()


if __name__ == "__main__":
    main()
