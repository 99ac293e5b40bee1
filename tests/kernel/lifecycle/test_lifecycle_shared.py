"""Engines that several notebooks share: found by name, held together, ended with the last."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from sgl_jupyter.lifecycle import attach, engines, launch

LAUNCH = """
from sgl_jupyter.lifecycle import attach, engines, launch
engine = launch({model!r}, {options})
print("pid", engine.pid)
"""


def launch_in(kernel, model: str = "ok", options: str = "share=True") -> psutil.Process:
    return psutil.Process(int(kernel.run(LAUNCH.format(model=model, options=options)).split()[-1]))


def test_the_same_launch_in_another_notebook_is_the_same_engine(start_kernel, nothing_is_left):
    one, other = start_kernel(), start_kernel()
    engine = launch_in(one, options="share=True, keep=0")
    assert launch_in(other, options="share=True, keep=0").pid == engine.pid
    assert one.run("print(engine.wait(20).users, engine.is_from_here)") == "['', ''] True\n"
    assert other.run("print(engine.is_from_here)") == "False\n"
    os.kill(one.manager.provisioner.pid, signal.SIGKILL)  # the one that launched it
    assert other.run("import time\nwhile len(engine.users) > 1: engine.watch(5)\nprint(engine.state)") == "ready\n"
    assert engine.is_running()
    other.close()
    nothing_is_left()


def test_a_restarted_kernel_finds_its_engine_again(start_kernel):
    kernel = start_kernel()
    engine = launch_in(kernel)
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=60)
    assert engine.is_running()
    assert launch_in(kernel).pid == engine.pid
    assert kernel.run("print(engine.wait(20).users)") == "['']\n"
    kernel.run("engine.terminate()")
    assert psutil.wait_procs([engine], 5)[1] == []


def test_an_engine_is_kept_for_as_long_as_was_said():
    engine = launch("ok", keep=1.0).wait(20)
    process = psutil.Process(engine.pid)
    engine.release()
    time.sleep(0.4)
    assert process.is_running()
    assert [seen.users for seen in engines()] == [[]]
    attach("ok")  # in time
    time.sleep(1.0)
    assert process.is_running()
    for seen in engines():
        seen.release()
    attach("ok").terminate()


def test_the_last_one_out_ends_it():
    engine = launch("ok", share=True, keep=0).wait(20)
    process = psutil.Process(engine.pid)
    with attach("ok") as other:
        assert other.pid == engine.pid
        engine.release()
        other.watch(2)
        assert process.is_running()
    assert psutil.wait_procs([process], 5)[1] == []


def test_a_private_engine_can_be_used_and_not_be_held():
    engine = launch("ok").wait(20)
    other = attach("ok")
    engine.release()
    while other.is_running():
        other.watch(5)
    assert launch("ok").terminate() is None  # not the one that is gone


def test_users_are_told_by_their_notebooks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "a.ipynb")
    engine = launch("ok", share=True, keep=0).wait(20)
    monkeypatch.setenv("JPY_SESSION_NAME", "b.ipynb")
    other = attach("ok")
    while len(engine.users) < 2:
        engine.watch(5)
    assert engine.users == ["a.ipynb", "b.ipynb"]
    assert engine.used_by == "a.ipynb, b.ipynb"
    other.release()
    while len(engine.users) > 1:
        engine.watch(5)
    assert engine.users == ["a.ipynb"]
    engine.terminate()


def test_a_shared_engine_that_was_launched_otherwise_is_not_taken_for_the_same():
    with launch("ok", share=True, max_total_tokens=9):
        with pytest.raises(
            RuntimeError, match=r"'ok' is running already, launched as 'kernel ok --max-total-tokens 9' and"
        ):
            launch("ok", share=True)
        assert launch("ok", share=True, name="mine", keep=0).terminate() is None


@pytest.mark.parametrize(("name", "words"), [("qwne", "Did you mean 'qwen'?"), ("x", "no engine 'x' is running")])
def test_an_engine_that_is_not_there_is_told_with_a_guess(name: str, words: str):
    with launch("ok", name="qwen"), pytest.raises(LookupError, match=words.replace("?", "\\?")):
        attach(name)


def test_many_notebooks_that_launch_at_once_get_one_engine():
    script = "from sgl_jupyter.lifecycle import launch; print(launch('ok', share=True, keep=5).wait(30).pid, flush=True); input()"
    notebooks = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    pids = {notebook.stdout.readline() for notebook in notebooks if notebook.stdout}
    for notebook in notebooks:
        notebook.communicate("\n", timeout=20)
    assert len(pids) == 1
    attach("ok").terminate()


def test_a_dead_engine_is_kept_for_nobody(nothing_is_left):
    engine = launch("ok", keep=600).wait(20)
    os.kill(engine.pid, signal.SIGKILL)
    while engine.is_running():
        engine.watch(5)
    engine.release()
    nothing_is_left()


def test_a_forked_child_does_not_hold_what_its_parent_attached_to():
    engine = launch("ok", share=True, keep=0).wait(20)
    process = psutil.Process(engine.pid)
    other = attach("ok")
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    engine.release()
    other.release()
    assert psutil.wait_procs([process], 5)[1] == []
    child.kill()
    child.join()
