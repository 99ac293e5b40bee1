"""`%sgl` in a real kernel, on the stand-in engine of the lifecycle tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .notebook_kernel import HERE, NotebookKernel


@contextmanager
def started(folder: Path) -> Iterator[NotebookKernel]:
    kernel = NotebookKernel(folder, [HERE / "lifecycle" / "fake"])
    kernel.run("%load_ext sgl_jupyter")
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[NotebookKernel]:
    with started(tmp_path) as kernel:
        yield kernel


@pytest.fixture(scope="module")
def idle_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookKernel]:
    """One that never launches an engine."""
    with started(tmp_path_factory.mktemp("idle")) as kernel:
        yield kernel


def test_an_engine_from_launch_to_end(kernel: NotebookKernel) -> None:
    cell = kernel.run("%sgl launch good-model --name mine -- --max-total-tokens 9  # small", watched=False)
    assert cell.printed == "Programs now run on engine 'mine'. It ends with this kernel, or with  %sgl terminate mine\n"
    assert kernel.value("__import__('sgl_jupyter').global_config.default_backend.name") == "mine"

    status = kernel.run("%sgl status").printed
    assert "good-model" in status
    assert "ready" in status
    assert "mine" in kernel.run("%sgl ls").printed
    assert "Loading weights 43 %" in kernel.run("%sgl logs mine -n 3").printed
    assert kernel.run("%sgl wait").printed == "Engine 'mine' is ready.\n"

    assert kernel.run("%sgl terminate").printed == "Engine 'mine' has ended.\n"
    assert kernel.run("%sgl ls").printed == "No engine is running.\n"
    assert "%sgl launch" in kernel.run('%%sgl\nuser("x")').printed


def test_running_the_launch_cell_again_keeps_the_engine(kernel: NotebookKernel) -> None:
    kernel.run("%sgl launch good-model")
    pid = kernel.value("__import__('sgl_jupyter').global_config.default_backend.pid")
    assert "now run on engine 'good-model'" in kernel.run("%sgl launch good-model").printed
    assert kernel.value("__import__('sgl_jupyter').global_config.default_backend.pid") == pid
    other = kernel.run("%sgl launch good-model -- --max-total-tokens 9")
    assert other.reply["ename"] == "UsageError"
    assert "%sgl terminate good-model" in other.printed


def test_launch_can_leave_the_engine_to_load(kernel: NotebookKernel) -> None:
    cell = kernel.run("%sgl launch slow-model --no-wait")
    assert "which is loading; the first run waits for it" in cell.printed
    assert "starting" in kernel.run("%sgl status").printed
    late = kernel.run("%sgl wait --timeout 0.2")
    assert late.reply["ename"] == "TimeoutError"


def test_an_engine_that_dies_while_loading_tells_its_last_words(kernel: NotebookKernel) -> None:
    cell = kernel.run("%sgl launch broken-model")
    assert cell.reply["ename"] == "EngineDiedError"
    assert "no such model: broken" in cell.reply["evalue"]


def test_a_cell_on_a_dead_engine_tells_its_last_words(kernel: NotebookKernel) -> None:
    kernel.run("%sgl launch good-model")
    kernel.run("import os; engine = __import__('sgl_jupyter').global_config.default_backend; os.kill(engine.pid, 9)")
    kernel.run("while engine.is_running(): engine.watch(0.1)")
    cell = kernel.run('%%sgl\nuser("x")')
    assert cell.reply["ename"] == "EngineDiedError"
    assert "signal 9" in cell.reply["evalue"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("lanch x", "Did you mean launch?"),
        ("launch", "the following arguments are required: MODEL"),
        ("launch x --no-wiat", "Did you mean --no-wait?"),
        ("terminate nobody", "there is no engine 'nobody'"),
        ("terminate", "no engine was launched here"),
        ("logs -- x", "unknown option --"),
        ("logs -n many", "invalid int value: 'many'"),
    ],
)
def test_a_mistyped_command_is_told_in_one_sentence(idle_kernel: NotebookKernel, line: str, says: str) -> None:
    cell = idle_kernel.run(f"%sgl {line}")
    assert cell.reply["ename"] == "UsageError"
    assert says in cell.printed


def test_each_command_explains_itself(idle_kernel: NotebookKernel) -> None:
    for command in ("launch", "wait", "status", "ls", "logs", "terminate", "version"):
        assert f"usage: %sgl {command}" in idle_kernel.run(f"%sgl {command} -h").printed
    assert idle_kernel.run("%sgl version").printed.startswith("sgl-jupyter ")
