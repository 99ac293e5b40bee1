"""`%sgl` in a real kernel, on the stand-in engine of the lifecycle tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sgl_jupyter.notebook.engine_parsers import duration

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


KILL = "import os\nengine = sgl_jupyter.global_config.default_backend\nos.kill(engine.pid, 9)\n"


def test_a_cell_on_a_dead_engine_tells_its_last_words(kernel: NotebookKernel) -> None:
    kernel.run("import sgl_jupyter\n%sgl launch good-model")
    kernel.run(KILL + "while engine.is_running(): engine.watch(0.1)")
    kernel.run('@sgl_jupyter.function\ndef ask(s):\n    s += "x"')
    for cell in ('%%sgl\nuser("x")', "ask.run()", "ask.run_batch([{}])"):
        ran = kernel.run(cell)
        assert ran.reply["ename"] == "EngineDiedError"
        assert ran.traceback.startswith("EngineDiedError: 'good-model' was ended by signal 9")
        assert "Loading weights 43 %" in ran.traceback


def test_a_cell_whose_engine_dies_meanwhile_tells_its_last_words(kernel: NotebookKernel) -> None:
    kernel.run("import sgl_jupyter\n%sgl launch good-model")
    cell = kernel.run(f'%%sgl\nsgl_jupyter.user("x")\n{KILL}s.assistant(sgl_jupyter.gen("y"))')
    assert cell.reply["ename"] == "EngineDiedError"
    assert "Loading weights 43 %" in cell.traceback
    assert "[failed: BackendUnreachable" in cell.shown[-1]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("lanch x", "Did you mean launch?"),
        ("launch", "the following arguments are required: MODEL"),
        ("launch x --no-wiat", "Did you mean --no-wait?"),
        ("terminate nobody", "there is no engine 'nobody'"),
        ("terminate", "no engine was launched here"),
        ("use nobody", "there is no engine 'nobody'"),
        ("kill", "the following arguments are required: NAME"),
        ("stop", "no engine was launched here"),
        ("connect gpu-box:30000", "base_url must be like"),
        ("connect http://127.0.0.1:9", "nothing answers at http://127.0.0.1:9"),
        ("connect http://127.0.0.1:9 --api-key-env NO_SUCH_KEY", "the kernel's environment has no NO_SUCH_KEY"),
        ("launch x --engine sglnag", "invalid choice: 'sglnag'"),
        ("launch x --engine sglang", "SGLang needs the package 'sglang', which is not installed: pip install sglang"),
        ("launch x --engine vllm --python /no/python", "python='/no/python' is no program that can be run"),
        ("launch x --tp 8", "kernel_engine computes on one GPU"),
        ("launch x --keep soon", "'soon' is no time such as 90s, 10m or 2h"),
        ("logs -- x", "unknown option --"),
        ("logs -n many", "invalid int value: 'many'"),
    ],
)
def test_a_mistyped_command_is_told_in_one_sentence(idle_kernel: NotebookKernel, line: str, says: str) -> None:
    cell = idle_kernel.run(f"%sgl {line}")
    assert cell.reply["ename"] == "UsageError"
    assert says in cell.printed


def test_times_have_units() -> None:
    assert [duration(word) for word in ("90", "90s", "10m", "1.5h")] == [90, 90, 600, 5400]


def test_each_command_explains_itself(idle_kernel: NotebookKernel) -> None:
    for command in (
        "launch", "connect", "use", "wait", "status", "ls", "logs", "stop", "terminate", "kill", "models", "config", "version"
    ):  # fmt: skip
        assert f"usage: %sgl {command}" in idle_kernel.run(f"%sgl {command} -h").printed
    assert idle_kernel.run("%sgl version").printed.startswith("sgl-jupyter ")


def test_several_engines_and_which_one_is_used(kernel: NotebookKernel) -> None:
    used = "__import__('sgl_jupyter').global_config.default_backend.name"
    kernel.run("%sgl launch good-model --name one")
    kernel.run("%sgl launch good-model --name two")
    assert kernel.value(used) == "two"
    cell = kernel.run("%sgl use one")
    assert cell.printed == "Programs now run on engine 'one'. It ends with this kernel, or with  %sgl terminate one\n"
    assert kernel.value(used) == "one"
    assert "Did you mean one?" in kernel.run("%sgl use oen").printed
    assert kernel.run("%sgl kill two").printed == "Engine 'two' has ended.\n"
    assert kernel.value(used) == "one"
    listed = kernel.run("%sgl ls").printed.splitlines()
    assert listed[0].split() == [
        "engine",
        "model",
        "state",
        "device",
        "memory",
        "requests",
        "tokens/s",
        "pid",
        "used",
        "by",
    ]
    assert listed[1].startswith("one     good-model  ready")
    assert " MB" in listed[1]
    assert listed[1].endswith("1 unnamed")
    assert len(listed) == 2


def test_an_engine_is_shared_by_two_notebooks(kernel: NotebookKernel, tmp_path: Path) -> None:
    line = "%sgl launch good-model --share --keep 0s"
    shared = (
        "Programs now run on engine 'good-model'. It ends with its last notebook, or with  %sgl terminate good-model\n"
    )
    with started(tmp_path) as other:
        assert kernel.run(line).printed == shared
        assert "or use one that is shared:  %sgl use good-model" in other.run('%%sgl\nuser("x")').printed
        assert other.run(line).printed == shared
        kernel.run("%sgl launch good-model --name mine")
        assert kernel.run("%sgl ls").printed.count("2 unnamed") == 1
        private = "Programs now run on engine 'mine'. It ends with the notebook that launched it.\n"
        assert other.run("%sgl use mine").printed == private
        assert other.run("%sgl use good-model").printed == shared
        unlike = other.run("%sgl launch other-model --name good-model --share")
        assert (unlike.reply["ename"], "launched with other arguments" in unlike.printed) == ("UsageError", True)
    kernel.run("import sgl_jupyter\nwhile len(sgl_jupyter.attach('good-model').users) > 9: pass")
    assert "ready" in kernel.run("%sgl status good-model").printed


def test_an_engine_elsewhere_is_connected_to_without_its_key_in_the_notebook(kernel: NotebookKernel) -> None:
    kernel.run("import os, sgl_jupyter as sgl\n%sgl launch good-model --name near")
    kernel.run("os.environ['THE_KEY'] = sgl.engines()[0].api_key; url = sgl.engines()[0].url")
    url = kernel.value("url")
    assert "give the server's key" in kernel.run(f"%sgl connect {url}").printed
    cell = kernel.run(f"%sgl connect {url} --name far --api-key-env THE_KEY")
    assert cell.printed == "Programs now run on engine 'far'. It runs elsewhere, and goes on when this kernel ends.\n"
    assert f"url     {url}" in kernel.run("%sgl status").printed
    assert kernel.run("%sgl ls").printed.splitlines()[2].endswith(url)
    for command in ("terminate", "kill far", "logs"):
        ended = kernel.run(f"%sgl {command}")
        assert ended.reply["ename"] == "UsageError"
        assert "was not launched from this machine" in ended.printed
    assert "give this one another name" in kernel.run(f"%sgl connect {url} --name near --api-key-env THE_KEY").printed
    assert (
        kernel.value("os.environ['THE_KEY']") not in kernel.run("%sgl ls").printed + kernel.run("%sgl config").printed
    )


def test_models_and_settings_are_listed(idle_kernel: NotebookKernel) -> None:
    idle_kernel.run("%config SglMagics.max_saved_chars = 1000")
    settings = idle_kernel.run("%sgl config").printed
    assert "SglMagics.max_saved_chars" in settings
    assert "1000" in settings
    assert "%config SglMagics" in settings
    assert "global_config.default_backend" in settings
    models = idle_kernel.run("%sgl models")
    assert models.reply["status"] == "ok"
