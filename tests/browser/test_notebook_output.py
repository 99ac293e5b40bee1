"""What `%%sgl` looks like in JupyterLab: while it runs, when it is stopped, on both themes, in a notebook nobody trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nbformat
import pytest

from .conftest import Lab, command

if TYPE_CHECKING:
    from playwright.sync_api import Page

SETUP = """%load_ext sgl_jupyter
from sgl_jupyter import *
from scripted_backend import ScriptedBackend
set_default_backend(ScriptedBackend({answers}))"""
COLOURS = """selector => {
    const element = [...document.querySelectorAll(selector)].at(-1);
    const style = getComputedStyle(element), parent = getComputedStyle(element.parentElement);
    const channels = colour => { const canvas = document.createElement('canvas').getContext('2d');
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
    return {text: channels(style.color), around: channels(parent.color), tint: style.backgroundColor,
            line: style.borderBottomStyle};
}"""


def output(page: Page, cell: int) -> str:
    """The text of a cell's output as it is on the page."""
    return page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea-output").last.inner_text()


def wait_for_output(page: Page, cell: int, text: str) -> None:
    outputs = page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea-output")
    outputs.filter(has_text=text).last.wait_for(timeout=30_000)


def test_text_appears_while_the_cell_runs_and_an_interrupt_keeps_it(lab: Lab) -> None:
    lab.write(
        "stream.ipynb",
        [SETUP.format(answers='[2, "Once upon ", 1, "a time", 60, "never"]'), '%%sgl\nassistant(gen("x"))'],
    )
    page = lab.open("stream.ipynb")
    command(page, "notebook:run-all-cells")
    wait_for_output(page, 1, "assistant · waiting for the engine")
    wait_for_output(page, 1, "Once upon")
    assert "a time" not in output(page, 1)
    assert "assistant · generating" in output(page, 1)
    wait_for_output(page, 1, "a time")
    command(page, "notebook:interrupt-kernel")
    wait_for_output(page, 1, "Stopped. The text and variables so far")
    text = page.locator(".jp-CodeCell").nth(1).locator(".sgl-run").inner_text()
    assert "Once upon a time" in text
    assert text.endswith("stopped")
    assert "generating" not in text


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("trusted", [True, False])
def test_generated_text_stands_out_on_every_theme_trusted_or_not(lab: Lab, theme: str, trusted: bool) -> None:
    page = _page_with_saved_output(lab, theme, trusted)
    for selector, line in ((".sgl-run mark", "solid"), (".sgl-run b", "double")):
        colours = page.evaluate(COLOURS, selector)
        assert colours["text"] == colours["around"]
        assert colours["tint"] not in ("rgba(0, 0, 0, 0)", "transparent")
        assert colours["line"] == line


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_batch_is_a_table_on_every_theme(lab: Lab, theme: str) -> None:
    program = (
        '@function\ndef f(s, of):\n    s += user(of) + assistant(gen("city"))\nf.run_batch([["France"], ["Italy"]])'
    )
    lab.write("batch.ipynb", [SETUP.format(answers='["Paris"], ["Rome"]'), program])
    page = lab.open("batch.ipynb", theme)
    command(page, "notebook:run-all-cells")
    wait_for_output(page, 1, "Rome")
    colours = page.evaluate(COLOURS, ".sgl-run td mark")
    assert colours["text"] == colours["around"]
    assert colours["line"] == "solid"
    alignments = page.locator(".sgl-run th, .sgl-run td").evaluate_all(
        "all => all.map(e => getComputedStyle(e).textAlign)"
    )
    assert set(alignments) == {"left"}


def test_hostile_text_does_not_reach_the_page(lab: Lab) -> None:
    hostile = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script> $x^2$ \\\\(y\\\\)"
    lab.write("hostile.ipynb", [SETUP.format(answers=f'["{hostile}"]'), '%%sgl\nassistant(gen("x"))'])
    page = lab.open("hostile.ipynb")
    command(page, "notebook:run-all-cells")
    wait_for_output(page, 1, "<img src=x")
    page.wait_for_timeout(1500)  # the time that MathJax would take
    assert "$x^2$ \\(y\\)" in output(page, 1)
    assert page.evaluate("window.hacked") is None
    assert page.locator(".sgl-run img, .sgl-run script, .sgl-run mjx-container").count() == 0


def _page_with_saved_output(lab: Lab, theme: str, trusted: bool) -> Page:
    """A notebook that was run and saved elsewhere, opened as its author or as a stranger."""
    from sgl_jupyter.lang.events import EventLog, Text
    from sgl_jupyter.notebook.run import Run
    from sgl_jupyter.notebook.views import mimebundle

    log = EventLog()
    log.append(Text("generated", "generated", "x"))
    log.append(Text("chosen", "chosen", "y"))
    data, metadata = mimebundle(Run.from_log(log), 1000)
    cell = nbformat.v4.new_code_cell("saved", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("display_data", data, metadata=metadata)]
    lab.write("saved.ipynb", [cell])
    page = lab.open("saved.ipynb", theme)
    if trusted:
        page.evaluate(
            "() => { for (const cell of jupyterapp.shell.currentWidget.content.model.cells) cell.trusted = true; }"
        )
    page.locator(".sgl-run mark").wait_for()
    return page
