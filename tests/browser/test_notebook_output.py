"""What `%%sgl` looks like in JupyterLab: while it runs, when it is stopped, on both themes, in a notebook nobody trusts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import nbformat
import pytest
from PIL import Image

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
    outputs.filter(has_text=text).last.wait_for()


def test_text_appears_while_the_cell_runs_and_an_interrupt_keeps_it(lab: Lab) -> None:
    lab.write(
        "stream.ipynb",
        [SETUP.format(answers='[5, "Once upon ", 10, "a time", 600, "never"]'), '%%sgl\nassistant(gen("x"))'],
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
    for selector, line in ((".sgl-run mark:not(:has(span))", "solid"), (".sgl-run b", "double")):
        colours = page.evaluate(COLOURS, selector)
        assert colours["text"] == colours["around"]
        assert colours["tint"] not in ("rgba(0, 0, 0, 0)", "transparent")
        assert colours["line"] == line
    is_cut_off = "lines => lines.map(e => e.scrollHeight > e.clientHeight)"
    assert not any(page.locator(".sgl-run pre").evaluate_all(is_cut_off)), "the underline of the last line is whole"


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


@pytest.mark.parametrize("trusted", [True, False])
def test_pictures_reasoning_and_shades_are_there_trusted_or_not(lab: Lab, trusted: bool) -> None:
    page = _page_with_saved_output(lab, "light", trusted)
    image = page.locator(".sgl-run img")
    assert image.evaluate("e => [e.naturalWidth, e.width, e.height, e.alt]") == [640, 320, 160, "image, 640x320 PNG"]
    shades = page.locator(".sgl-run mark span").evaluate_all(
        "all => all.map(e => [e.title, getComputedStyle(e).backgroundColor])"
    )
    assert [title for title, _ in shades] == ["50.0%", "25.0%"]
    assert len({colour for _, colour in shades}) == 2
    thought = page.locator(".sgl-run details div")
    assert not thought.is_visible()
    page.locator(".sgl-run summary").focus()
    page.keyboard.press("Enter")
    thought.wait_for(state="visible")
    assert thought.inner_text() == "Hmm."


def test_a_closed_tab_does_not_end_the_run(lab: Lab) -> None:
    cells = [SETUP.format(answers='["Once ", 3, "upon a time"]'), '%%sgl\nassistant(gen("x"))']
    lab.write("closed.ipynb", cells)
    page = lab.open("closed.ipynb")
    command(page, "notebook:run-all-cells")
    wait_for_output(page, 1, "Once")
    page.close()
    page = lab.open("closed.ipynb")
    page.evaluate(
        "() => { const { content } = jupyterapp.shell.currentWidget;"
        " content.model.sharedModel.insertCell(2, { cell_type: 'code', source: 'print(s.text()); _sgl' });"
        " content.activeCellIndex = 2; }"
    )
    command(page, "notebook:run-cell")
    wait_for_output(page, 2, "Once upon a time")


def test_no_network_is_needed(lab: Lab) -> None:
    lab.write("offline.ipynb", [SETUP.format(answers='["Paris"]'), '%%sgl\nassistant(gen("x"))'])
    asked: list[str] = []
    page = lab.open("offline.ipynb", prepare=lambda page: page.on("request", lambda request: asked.append(request.url)))
    command(page, "notebook:run-all-cells")
    wait_for_output(page, 1, "Paris")
    assert {urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))} == {"127.0.0.1"}


def test_the_keyboard_runs_stops_and_reads(lab: Lab) -> None:
    lab.write("keys.ipynb", [SETUP.format(answers='["Once ", 600]'), '%%sgl\nassistant(gen("x"))'])
    page = lab.open("keys.ipynb")
    page.locator(".jp-CodeCell").first.click()
    page.keyboard.press("Escape")
    for _ in range(2):
        page.keyboard.press("Shift+Enter")
    wait_for_output(page, 1, "Once")
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    page.keyboard.press("i")
    wait_for_output(page, 1, "Stopped.")
    words = page.locator(".jp-CodeCell").nth(1).locator(".sgl-run").aria_snapshot()
    for said in ("assistant", "x", "Once", "stopped"):
        assert said in words


def test_a_page_stays_responsive_with_20000_tokens(lab: Lab) -> None:
    answers = '*[p for _ in range(100) for p in (["token "] * 200 + [0.05])]'
    lab.write("long.ipynb", [SETUP.format(answers=f"[{answers}]"), '%%sgl\nassistant(gen("x"))'])
    page = lab.open("long.ipynb")
    page.evaluate(
        "() => { window.tasks = []; new PerformanceObserver(list => "
        "window.tasks.push(...list.getEntries().map(e => e.duration))).observe({ entryTypes: ['longtask'] }); }"
    )
    command(page, "notebook:run-all-cells")
    page.locator(".jp-CodeCell").nth(1).locator(".sgl-run mark").wait_for()
    page.wait_for_function(
        "() => !document.querySelector('.sgl-run').innerText.includes('generating')"
        " && document.querySelector('.sgl-run mark').innerText.length > 119000"
    )
    assert output(page, 1).count("token") == 20_000
    assert max(page.evaluate("window.tasks"), default=0) < 2000


def _page_with_saved_output(lab: Lab, theme: str, trusted: bool) -> Page:
    """A notebook that was run and saved elsewhere, opened as its author or as a stranger."""
    from sgl_jupyter.lang.events import EventLog, GenerationStarted, Reasoning, Text, Token, Tokens, VariableDone
    from sgl_jupyter.lang.media import as_image
    from sgl_jupyter.notebook.run import Run
    from sgl_jupyter.notebook.views import mimebundle

    log = EventLog()
    log.append(Text("<image>", "template", media=as_image(Image.new("RGB", (640, 320), "green"))))
    log.append(Text("generated", "generated", "x"))
    log.append(VariableDone("x", "generated", None))
    log.append(Text("chosen", "chosen", "y"))
    log.append(VariableDone("y", "chosen", None))
    log.append(GenerationStarted("z"))
    log.append(Reasoning("Hmm.", "z"))
    log.append(Text("shaded", "generated", "z"))
    log.append(Tokens("z", "generated", (Token(0, "sha", math.log(0.5)), Token(1, "ded", math.log(0.25)))))
    log.append(VariableDone("z", "shaded", None))
    data, metadata = mimebundle(Run.from_log(log), 1000)
    cell = nbformat.v4.new_code_cell("saved", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("display_data", data, metadata=metadata)]
    lab.write("saved.ipynb", [cell])
    page = lab.open("saved.ipynb", theme)
    if trusted:
        page.evaluate(
            "() => { for (const cell of jupyterapp.shell.currentWidget.content.model.cells) cell.trusted = true; }"
        )
    page.locator(".sgl-run mark").first.wait_for()
    return page
