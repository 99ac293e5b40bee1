"""What a notebook of many runs weighs once it is saved."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from .notebook_kernel import HERE, REPOSITORY, SETUP

GENERATIONS = 100
ANSWER = "Once upon a time there was a kernel that told stories. " * 60


def test_a_notebook_of_100_generations_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [HERE, REPOSITORY])))
    backend = f"set_default_backend(ScriptedBackend(*[[{ANSWER!r}]] * {GENERATIONS}))"
    sources = [SETUP + backend, *['%%sgl\nuser("Tell me a story.")\nassistant(gen("story"))'] * GENERATIONS]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    path = tmp_path / "stories.ipynb"
    nbformat.write(notebook, path)
    texts = ["".join(output["data"]["text/plain"] for output in cell.outputs) for cell in notebook.cells[1:]]
    assert all(len(cell.outputs) == 1 for cell in notebook.cells[1:])
    assert all(ANSWER in text for text in texts)
    assert path.stat().st_size < 3 * sum(map(len, texts))
    assert "widgets" not in notebook.metadata
    assert "widget" not in path.read_text()
