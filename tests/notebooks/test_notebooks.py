"""Every tutorial notebook gives exactly its stored outputs when it is run again, and leaves nothing running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_running_again_gives_the_stored_outputs(notebook: Path) -> None:
    sanitize = Path(__file__).with_name("sanitize.cfg")
    command = [
        sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=300",
        f"--nbval-sanitize-with={sanitize}", "-p", "no:cacheprovider", "-q", str(notebook),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("name", ["quickstart", "sgl_cells"])
def test_papermill_runs_it_with_one_output_a_run(name: str, tmp_path: Path) -> None:
    papermill = pytest.importorskip("papermill", reason="NO PAPERMILL TEST: pip install papermill")
    ran = papermill.execute_notebook(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "ran.ipynb", progress_bar=False)
    runs = [cell for cell in ran.cells if cell.cell_type == "code" and cell.source.startswith("%%sgl")]
    for cell in runs:
        assert len([output for output in cell.outputs if output.output_type == "display_data"]) <= 1
    assert bool(runs) == (name == "sgl_cells")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_executed_and_small(notebook: Path) -> None:
    stored = nbformat.read(notebook, as_version=4)
    assert all(cell.execution_count for cell in stored.cells if cell.cell_type == "code")
    assert "widgets" not in stored.metadata
    assert notebook.stat().st_size < 200_000
