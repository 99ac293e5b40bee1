"""The tools in a real JupyterLab: what their pages do, from the keyboard too, and what they leave in the notebook."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from .conftest import Lab, command
from .test_notebook_output import output

pytest.importorskip("anywidget", reason="NO WIDGET TESTS: pip install anywidget")

if TYPE_CHECKING:
    from playwright.sync_api import Page

LAUNCH = """import sgl_jupyter as sgl
from sgl_jupyter.widgets import EnginePanel, Playground, TokenInspector
engine = sgl.launch("tiny-chat").wait()
sgl.set_default_backend(engine)"""
INSPECT = """@sgl.function
def capital(s):
    s += sgl.user("What is the capital of Japan?")
    s += sgl.assistant(sgl.gen("answer", temperature=0, stop="\\n", return_logprob=True, top_logprobs_num=3,
                               return_text_in_logprobs=True))
state = capital()
inspector = TokenInspector(state, "answer")
inspector"""

EXECUTE = "code => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}).done"


BEGIN = "code => { window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}) }"
BUSY_SECONDS = 300
STATUS = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status"


def open_and_run(lab: Lab, name: str, cells: list[str], theme: str = "light") -> Page:
    lab.write(name, cells)
    page = lab.open(name, theme)
    command(page, "notebook:run-all-cells")
    page.locator(".sgl-tool").last.wait_for()
    return page


def saved_outputs(lab: Lab, page: Page, name: str) -> list[dict]:
    command(page, "docmanager:save")
    page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
    notebook = json.loads((lab.folder / name).read_text())
    assert "widgets" not in notebook["metadata"]
    return [output for cell in notebook["cells"] for output in cell["outputs"]]


def test_a_tool_works_while_a_cell_runs(lab: Lab) -> None:
    page = open_and_run(lab, "busy.ipynb", [LAUNCH, "playground = Playground()\nplayground"])
    page.wait_for_function(f"{STATUS} == 'idle'")
    page.evaluate(BEGIN, f"import time; time.sleep({BUSY_SECONDS})")
    page.wait_for_function(f"{STATUS} == 'busy'")
    began = time.monotonic()
    tool = page.locator(".sgl-tool")
    tool.get_by_label("prompt").fill("What is the capital of France?")
    tool.get_by_label("temperature").fill("0")
    tool.get_by_label("prompt").press("Control+Enter")
    tool.get_by_text("done in").wait_for()
    assert "Paris" in tool.locator(".sgl-sample mark").inner_text()
    assert time.monotonic() - began < BUSY_SECONDS, "it waited for the cell"
    command(page, "notebook:interrupt-kernel")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_playground_streams_samples_side_by_side_and_becomes_html(lab: Lab, theme: str) -> None:
    page = open_and_run(lab, "playground.ipynb", [LAUNCH, "playground = Playground()\nplayground"], theme)
    tool = page.locator(".sgl-tool")
    tool.get_by_label("prompt").fill("What is the capital of France?")
    tool.get_by_label("temperature").fill("0")
    tool.get_by_label("samples").fill("2")
    tool.get_by_label("prompt").press("Control+Enter")
    tool.get_by_text("done in").wait_for()
    samples = tool.locator(".sgl-sample mark").all_inner_texts()
    assert len(samples) == 2
    assert all("Paris" in sample for sample in samples)

    tool.get_by_label("constraint kind").select_option("regex")
    tool.get_by_label("constraint", exact=True).fill("[unclosed")
    tool.get_by_role("button", name="Run").click()
    tool.get_by_text("failed").first.wait_for()

    page.evaluate(EXECUTE, "playground.close()")
    page.locator(".sgl-tool").wait_for(state="detached")
    assert "%%sgl -n 2" in output(page, 1)
    left = saved_outputs(lab, page, "playground.ipynb")[-1]
    assert set(left["data"]) == {"text/html", "text/plain"}


def test_arrow_keys_go_from_token_to_token(lab: Lab) -> None:
    page = open_and_run(lab, "inspector.ipynb", [LAUNCH, INSPECT])
    tokens = page.locator(".sgl-token")
    assert "Tokyo" in "".join(tokens.all_inner_texts())
    tokens.first.click()
    page.keyboard.press("ArrowRight")
    assert tokens.nth(1).get_attribute("aria-selected") == "true"
    details = page.locator(".sgl-tool .sgl-note")
    assert "%" in details.inner_text()
    assert details.locator("tr").count() == 3
    page.keyboard.press("End")
    assert tokens.last.get_attribute("aria-selected") == "true"


def test_the_engine_panel_launches_watches_and_ends_engines(lab: Lab) -> None:
    page = open_and_run(
        lab, "panel.ipynb", ["from sgl_jupyter.widgets import EnginePanel\npanel = EnginePanel()\npanel"]
    )
    tool = page.locator(".sgl-tool")
    tool.get_by_label("model").fill("tiny-chat")
    tool.get_by_label("model").press("Enter")
    tool.locator(".sgl-log", has_text="ready to roll").wait_for()
    row = tool.locator("tbody tr").last  # the newest; other notebooks may have theirs
    row.get_by_text("ready").wait_for()
    row.get_by_text(re.compile("[MG]B")).wait_for()
    count = tool.locator("tbody tr").count()
    row.get_by_role("button", name="terminate").press("Enter")
    tool.locator("tbody tr").nth(count - 1).wait_for(state="detached")


def test_where_nobody_watches_a_tool_is_html() -> None:
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    notebook = new_notebook(cells=[new_code_cell("from sgl_jupyter.widgets import Playground\nPlayground()")])
    NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    (left,) = notebook.cells[0].outputs
    assert set(left["data"]) == {"text/html", "text/plain"}
