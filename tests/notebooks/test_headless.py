"""Tools and interpreters without a user before them: one output a run, the right exit code, and no engine left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

KERNEL_TESTS = Path(__file__).parents[1] / "kernel"
REPOSITORY = Path(__file__).parents[2]
PYTHON_PATH = os.pathsep.join(map(str, [KERNEL_TESTS / "lifecycle" / "fake", KERNEL_TESTS, REPOSITORY]))
IMPORTS = "from sgl_jupyter import *\nfrom scripted_backend import ScriptedBackend"
CELLS = [
    f"%load_ext sgl_jupyter\n{IMPORTS}",
    "%sgl launch good-model",
    "set_default_backend(ScriptedBackend({answer}))",
    '%%sgl\nuser("Where?")\nassistant(gen("city"))',
]
SCRIPT = f"""{IMPORTS}
engine = launch("good-model").wait()

@function
def where(s):
    s += assistant(gen("city"))

print(where(backend=ScriptedBackend({{answer}}))["city"])
"""
ANSWERS = {"good": '["Par", 0.2, "is"]', "bad": '["Par", BackendError("out of memory")]'}

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    places = {"JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "IPYTHONDIR": str(folder / "ipython")}
    environment = {**os.environ, **places, "PYTHONPATH": PYTHON_PATH}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=400
    )


@pytest.fixture
def notebook(tmp_path: Path, answer: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source.replace("{answer}", ANSWERS[answer])) for source in CELLS]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "in.ipynb")
    return tmp_path / "in.ipynb"


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(
    "command",
    ["nbconvert --to notebook --execute in.ipynb --output out.ipynb", "papermill --no-progress-bar in.ipynb out.ipynb"],
    ids=["nbconvert", "papermill"],
)
def test_a_notebook_is_executed_with_one_output_a_run(notebook: Path, command: str, answer: str) -> None:
    pytest.importorskip(command.split()[0])
    done = run(notebook.parent, *command.split())
    assert done.returncode == (answer == "bad"), done.stderr
    if answer == "bad":
        assert "out of memory" in done.stderr
        return
    executed = nbformat.read(notebook.parent / "out.ipynb", as_version=4)
    outputs = [output for cell in executed.cells for output in cell.outputs if output.output_type == "display_data"]
    assert len(outputs) == 1
    assert outputs[0].data["text/plain"].endswith("city=«Paris»")


@pytest.mark.parametrize("answer", ANSWERS)
def test_ipython_in_a_terminal_runs_a_notebook(notebook: Path, answer: str) -> None:
    done = run(notebook.parent, "IPython", "--no-banner", notebook.name)
    assert done.returncode == (answer == "bad"), done.stdout + done.stderr
    assert "city=«Par" in done.stdout
    assert ("out of memory" in done.stdout + done.stderr) == (answer == "bad")


@pytest.mark.parametrize("answer", ANSWERS)
def test_python_runs_a_script(tmp_path: Path, answer: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.replace("{answer}", ANSWERS[answer]))
    done = run(tmp_path, "script")
    assert (done.returncode, done.stdout) == ((1, "") if answer == "bad" else (0, "Paris\n"))
    assert done.stderr.rstrip().endswith("while running Gen('city')") == (answer == "bad")
