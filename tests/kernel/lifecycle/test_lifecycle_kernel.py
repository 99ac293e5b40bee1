"""Engines launched from real Jupyter kernels: however the kernel ends, nothing is left; an interrupt reaches no engine."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

LAUNCH = """
from sgl_jupyter.lifecycle import launch, engines
engine = launch({model!r})
print("pid", engine.pid)
"""


def launch_in(kernel, model: str = "stubborn-family") -> psutil.Process:
    """Launch an engine that makes it hard to be rid of, and return its process when it is ready."""
    printed = kernel.run(LAUNCH.format(model=model))
    engine = psutil.Process(int(printed.split()[-1]))
    kernel.run("engine.wait(30)")
    return engine


@pytest.mark.parametrize("model", ["ok", "stubborn-family"])
@pytest.mark.parametrize("now", [False, True], ids=["shutdown", "killed_as_by_nbval"])
def test_nothing_is_left_after_a_kernel_is_shut_down(start_kernel, nothing_is_left, now: bool, model: str):
    kernel = start_kernel()
    launch_in(kernel, model)
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=now)
    nothing_is_left()


@pytest.mark.parametrize("model", ["slow", "stubborn-family"])
def test_nothing_is_left_after_kill_9_of_a_kernel(start_kernel, nothing_is_left, model: str):
    kernel = start_kernel()
    kernel.run(LAUNCH.format(model=model))
    os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)
    nothing_is_left()


def test_a_restarted_kernel_starts_with_a_clean_slate(start_kernel, runtime: Path):
    kernel = start_kernel()
    engine = launch_in(kernel, "ok")
    kernel.manager.restart_kernel()
    kernel.client.wait_for_ready(timeout=60)
    gone, _ = psutil.wait_procs([engine], 3)
    assert gone
    assert kernel.run("from sgl_jupyter.lifecycle import engines; print(engines())") == "[]\n"


def test_an_engine_whose_handle_was_lost_still_runs_and_still_ends_with_the_kernel(start_kernel, nothing_is_left):
    kernel = start_kernel()
    engine = launch_in(kernel, "ok")
    kernel.run("import gc\nengine = None\nOut.clear()\ndel _, __, ___\ngc.collect();")
    assert kernel.run("print(engines()[0].wait(5).state)") == "ready\n"
    assert engine.is_running()
    kernel.manager.shutdown_kernel()
    nothing_is_left()


def test_an_interrupt_ends_the_wait_in_one_line_and_the_engine_goes_on(start_kernel):
    kernel = start_kernel(allow_stdin=True)
    kernel.run(LAUNCH.format(model="slow"))
    waiting = kernel.start("engine.wait()")
    queued = kernel.start("print('not to be run')")
    kernel.wait_for_output("Loading weights 43 %")
    kernel.manager.interrupt_kernel()
    reply = kernel.finish(waiting)
    assert (reply["status"], reply["ename"]) == ("error", "WaitInterrupted")
    [line] = reply["traceback"]
    assert (
        line == "Waiting for 'slow' was interrupted. It goes on loading: wait for it again, or end it with terminate()."
    )
    assert kernel.finish(queued)["status"] == "aborted"
    assert kernel.run("print(engine.state)") == "starting\n"
    kernel.run("engine.terminate()")


def test_interrupts_of_a_busy_kernel_reach_neither_engine_nor_supervisor(start_kernel):
    kernel = start_kernel()
    engine = launch_in(kernel, "ok")
    for _ in range(2):
        busy = kernel.start("print('busy')\nimport time\ntime.sleep(60)")
        kernel.wait_for_output("busy")
        kernel.manager.interrupt_kernel()
        assert kernel.finish(busy)["ename"] == "KeyboardInterrupt"
    assert kernel.run("print(engine.state)") == "ready\n"
    assert engine.is_running()
    kernel.run("engine.terminate()")


def test_a_watched_wait_shows_one_line_that_is_written_over(start_kernel):
    kernel = start_kernel(allow_stdin=True)
    kernel.run(LAUNCH.format(model="pause"))
    kernel.run("engine.wait()")
    kinds = [m["msg_type"] for m in kernel.messages]
    shown = [m["content"]["data"]["text/plain"] for m in kernel.messages if m["msg_type"].endswith("display_data")]
    assert kinds.count("display_data") == 1
    assert shown[-1] == "'pause' is ready."
    assert "stream" not in kinds
    kernel.run("engine.terminate()")


def test_an_unwatched_wait_publishes_nothing_so_that_saved_notebooks_stay_the_same(start_kernel):
    kernel = start_kernel(allow_stdin=False)
    kernel.run(LAUNCH.format(model="ok"))
    kernel.run("_ = engine.wait()")
    assert {m["msg_type"] for m in kernel.messages} == {"status", "execute_input"}
    kernel.run("engine.terminate()")


FORK = """
import multiprocessing, os, time
def look(connection):
    connection.send((engine.state, engine.pid, [e.state for e in engines()]))
    time.sleep(600)
ours, theirs = multiprocessing.Pipe()
child = multiprocessing.get_context("fork").Process(target=look, args=(theirs,))
child.start()
print(child.pid, *ours.recv())
"""


def test_a_forked_child_sees_the_engine_but_does_not_keep_it_alive(start_kernel):
    kernel = start_kernel()
    engine = launch_in(kernel, "ok")
    child, *seen = kernel.run(FORK).split(" ", 3)
    assert seen == ["ready", str(engine.pid), "['ready']\n"]
    os.kill(kernel.manager.provisioner.pid, signal.SIGKILL)
    gone, _ = psutil.wait_procs([engine], 3)
    assert gone
    os.kill(int(child), signal.SIGKILL)  # which ran all the time


def test_a_forked_child_that_ends_leaves_the_engine_to_its_parent(start_kernel):
    kernel = start_kernel()
    engine = launch_in(kernel, "ok")
    kernel.run("import os\npid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)")
    assert kernel.run("print(engine.state)") == "ready\n"
    assert engine.is_running()
    kernel.run("engine.terminate()")


def test_several_threads_may_wait_for_and_end_the_same_engine(start_kernel):
    kernel = start_kernel()
    kernel.run(LAUNCH.format(model="ok"))
    printed = kernel.run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    waits = [pool.submit(engine.wait, 30) for _ in range(8)]\n"
        "    print({wait.result().state for wait in waits})\n"
        "    ends = [pool.submit(engine.terminate) for _ in range(8)]\n"
        "    print({end.result(20) for end in ends}, engine.returncode)\n"
    )
    assert printed == f"{{'ready'}}\n{{None}} {-signal.SIGTERM}\n"


SCRIPT = """
import sys, time
sys.stdout.write("started\\n"); sys.stdout.flush()
from sgl_jupyter.lifecycle import launch
engine = launch("family")
engine.wait()
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["kill_9", "ctrl_c", "sigterm"])
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, 0.3, 0.4, 0.8])
def test_nothing_is_left_of_a_script_that_is_ended_at_any_moment(nothing_is_left, number: int, delay: float):
    script = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert script.stdout
    script.stdout.readline()
    time.sleep(delay)
    script.send_signal(number)
    assert script.wait(10) != 0
    script.stdout.close()
    nothing_is_left()


def test_a_script_that_just_ends_is_not_held_up_and_leaves_nothing(nothing_is_left):
    code = "from sgl_jupyter.lifecycle import launch; print(launch('stubborn').wait())"
    script = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert re.fullmatch(r"<EngineHandle 'stubborn': ready, pid \d+, http://127.0.0.1:\d+>\n", script.stdout)
    assert (script.returncode, script.stderr) == (0, "")
    nothing_is_left()


def test_wait_in_a_terminal_shows_the_log_and_cleans_up_its_line(tmp_path: Path):
    import pty

    controller, terminal = pty.openpty()
    code = "from sgl_jupyter.lifecycle import launch\nwith launch('ok') as engine: pass"
    script = subprocess.Popen([sys.executable, "-c", code], stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while data := os.read(controller, 4096):
            shown += data
    except OSError:  # how a pseudo-terminal says that its other end is closed
        pass
    os.close(controller)
    assert script.wait(10) == 0
    assert shown.endswith(b"\r\x1b[2K")
    assert b"\n" not in shown


def test_the_users_files_cannot_stand_in_for_the_standard_librarys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("selectors", "socket", "argparse"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is the user\\'s own module')")
    code = (
        "import sys; sys.path.pop(0)\nfrom sgl_jupyter.lifecycle import launch\nwith launch('ok') as e: print(e.state)"
    )
    script = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert script.stdout == "ready\n", script.stderr
