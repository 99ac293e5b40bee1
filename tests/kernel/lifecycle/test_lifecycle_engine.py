"""One engine and its supervisor, from launch to the last trace, with this process in the kernel's place."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from sgl_jupyter.lifecycle import EngineDiedError, engines, launch, registry
from sgl_jupyter.lifecycle.link import Link
from sgl_jupyter.lifecycle.pids import ProcessId
from sgl_jupyter.lifecycle.process import SupervisedProcess, new_entry


def ask(url: str, key: str = "") -> dict:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def entry_of(handle: SupervisedProcess) -> registry.Entry:
    return next(entry for entry in registry.entries() if entry.id == handle.id)


def supervisor_of(handle: SupervisedProcess) -> psutil.Process:
    entry = entry_of(handle)
    assert entry.supervisor
    return psutil.Process(entry.supervisor.pid)


def test_launch_returns_while_the_engine_loads_and_wait_returns_when_it_is_ready():
    engine = launch("slow")
    assert (engine.state, engine.url, engine.poll(), engine.returncode) == ("starting", None, None, None)
    engine.terminate()
    with launch("org/tiny", name="mine").wait(20) as engine:
        assert (engine.state, engine.name, engine.model) == ("ready", "mine", "org/tiny")
        assert ask(engine.url, engine.api_key)["pid"] == engine.pid
        assert engine.wait() is engine
    assert engine.state == "dead"


def test_flags_become_the_engines_command_line():
    with launch("ok", max_total_tokens=64, disable_radix_cache=True, skip=False, stop=["a", "b"], extra={"k": 1},
                engine_args=["--raw", "x y"]) as engine:  # fmt: skip
        argv = ask(engine.url, engine.api_key)["argv"]
    wanted = [
        "--max-total-tokens",
        "64",
        "--disable-radix-cache",
        "--stop",
        "a",
        "b",
        "--extra",
        '{"k": 1}',
        "--raw",
        "x y",
    ]
    assert argv[-len(wanted) :] == wanted
    assert "--skip" not in argv
    with pytest.raises(TypeError, match="model_path"):
        launch("ok", model_path="other")


def test_the_key_is_asked_for_and_kept_from_logs_reprs_command_lines_and_other_users(runtime: Path):
    with launch("ok") as engine:
        key = engine.api_key
        assert key
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(engine.url)
        family = [psutil.Process(engine.pid), supervisor_of(engine)]
        assert not [p for p in family if key in " ".join(p.cmdline()) + str(p.environ())]
        assert key not in repr(engine) + repr(entry_of(engine)) + engine.logs()
        assert Path(entry_of(engine).folder).stat().st_mode & 0o777 == 0o700
        private = [entry_of(engine).api_key_file, engine.log_path, *(runtime / "sgl_jupyter/engines").iterdir()]
        assert [path.stat().st_mode & 0o777 for path in private] == [0o600] * len(private)
        assert {path.stat().st_mode & 0o777 for path in (runtime / "sgl_jupyter").iterdir()} == {0o700}


def test_the_engine_writes_to_its_log_only_and_has_no_input(capfd: pytest.CaptureFixture[str]):
    with launch("ok") as engine:
        assert "fired up" in engine.logs(1)
        assert os.readlink(f"/proc/{engine.pid}/fd/0") == os.devnull
    assert engine.logs().splitlines()[0] == "Loading weights 43 %"  # still there after the end
    assert capfd.readouterr() == ("", "")


def test_an_engine_that_dies_while_loading_is_an_error_with_its_exit_code_and_last_words():
    engine = launch("broken")
    with pytest.raises(EngineDiedError, match=r"exited with code 1(?s:.*)no such model: broken"):
        engine.wait(20)
    assert engine.returncode == 1
    assert engines() == []
    with pytest.raises(EngineDiedError, match="exited with code 1"):
        engine.wait(20)


def test_a_wait_that_takes_too_long_says_what_the_engine_did_last_and_leaves_it_loading():
    engine = launch("slow")
    with pytest.raises(TimeoutError, match=r"not ready after 0.5 s(?s:.*)Loading weights 43 %"):
        engine.wait(0.5)
    assert engine.is_running()
    engine.terminate()


def test_terminate_returns_when_the_whole_family_is_gone_even_if_it_ignores_the_request():
    engine = launch("stubborn-family").wait(20)
    family = psutil.Process(engine.pid).children(recursive=True)
    folder = Path(entry_of(engine).folder)
    assert family
    engine.terminate()
    assert not [p for p in [*family] if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not psutil.pid_exists(engine.pid)
    assert (engine.returncode, engine.is_running(), folder.exists()) == (-signal.SIGKILL, False, False)
    engine.terminate()
    engine.kill()


def test_what_left_the_engines_process_group_is_ended_too():
    engine = launch("stray").wait(20)
    [child] = psutil.Process(engine.pid).children()
    assert os.getpgid(child.pid) != os.getpgid(engine.pid)
    engine.terminate()
    assert not child.is_running()


def test_kill_ends_a_stubborn_engine_without_grace():
    engine = launch("stubborn").wait(20)
    engine.kill()
    assert engine.returncode == -signal.SIGKILL


def test_an_error_in_the_with_block_or_while_entering_it_ends_the_engine():
    with pytest.raises(ZeroDivisionError), launch("ok") as engine:
        raise ZeroDivisionError
    assert not engine.is_running()
    with pytest.raises(EngineDiedError), launch("broken"):
        pass


def test_an_engine_that_is_killed_is_reported_with_the_rest_of_its_family_gone(runtime: Path):
    engine = launch("family").wait(20)
    [child] = psutil.Process(engine.pid).children()
    os.kill(engine.pid, signal.SIGKILL)
    psutil.wait_procs([child], 5)
    assert not child.is_running()
    while engine.poll() is None:
        engine.watch(5)
    assert engine.returncode == -signal.SIGKILL
    [listed] = engines()  # for others to see, until its kernel takes notice
    assert (listed.state, listed.returncode) == ("dead", -signal.SIGKILL)
    with pytest.raises(EngineDiedError, match=r"ended by signal 9 \(Killed\)"):
        engine.wait()
    assert engines() == []


def test_what_the_engine_started_ends_when_its_kernel_finds_the_supervisor_killed():
    engine = launch("family").wait(20)
    [child] = psutil.Process(engine.pid).children()
    supervisor_of(engine).kill()
    while engine.poll() is None:
        engine.watch(5)
    assert psutil.wait_procs([child], 5)[1] == []


@pytest.mark.parametrize("model", ["ok", "slow", "stubborn"])
def test_the_engine_dies_with_a_supervisor_that_is_killed(model: str):
    engine = launch(model)
    itself = psutil.Process(engine.pid)
    folder = Path(entry_of(engine).folder)
    supervisor_of(engine).kill()
    assert psutil.wait_procs([itself], 5)[1] == []
    with pytest.raises(EngineDiedError):
        engine.wait(20)
    assert not folder.exists()
    assert engines() == []


def test_a_supervisor_asked_to_end_ends_the_engine():
    engine = launch("stubborn-family").wait(20)
    supervisor_of(engine).terminate()
    while engine.is_running():
        engine.watch(5)
    engine.terminate()


def test_the_engine_lives_as_long_as_one_of_several_leases_is_held():
    engine = launch("ok").wait(20)
    other = Link.connect(entry_of(engine).lease_socket)
    other.send("lease")
    other.wait(10)
    engine._link.close()
    [seen] = engines()
    seen.watch(1.0)
    assert seen.is_running()
    other.close()
    while seen.is_running():
        seen.watch(5)
    seen.terminate()


def test_a_listing_holds_no_lease_and_can_end_the_engine():
    engine = launch("ok", name="first").wait(20)
    launch("ok", name="second")
    first, second = engines()
    assert [handle.name for handle in (first, second)] == ["first", "second"]
    assert ask(first.url, first.api_key)["pid"] == engine.pid
    second.terminate()
    first.terminate()
    assert engine.returncode == -signal.SIGTERM
    assert not second.is_running()


def test_a_malformed_message_costs_its_sender_the_connection_and_nobody_else_anything():
    engine = launch("ok").wait(20)
    other = Link.connect(entry_of(engine).lease_socket)
    other.send_line("{ not JSON")
    while not other.has_ended:
        other.wait(5)
        other.latest()
    assert engine.is_running()
    engine.terminate()


def test_what_cannot_be_run_is_an_error_and_leaves_nothing():
    with pytest.raises(RuntimeError, match=r"'x' could not be started: .*no-such-program"):
        SupervisedProcess.start(new_entry("x", "x"), ["no-such-program"])


def test_stale_entries_go_without_harm_to_a_process_that_has_their_pid_now(tmp_path: Path):
    folder = tmp_path / "left"
    folder.mkdir()
    me = ProcessId.of(os.getpid())
    reused = replace(me, started=me.started - 1)
    stale = replace(new_entry("x", "x"), supervisor=reused, engine=reused, folder=str(folder))
    elsewhere = replace(stale, id="elsewhere", host="another-machine")
    for entry in (stale, elsewhere):
        registry.write(registry.engines_folder(), entry)
    (registry.engines_folder() / "unfinished.json").write_text("{}")
    assert registry.entries() == []
    assert {path.name for path in registry.engines_folder().iterdir()} == {"elsewhere.json", "unfinished.json"}
    assert not folder.exists()
    for path in registry.engines_folder().iterdir():
        path.unlink()


def test_a_process_is_known_by_its_start_and_a_zombie_is_not_alive():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = ProcessId.of(process.pid)
    assert found.is_alive()
    assert not replace(found, started=found.started + 1).is_alive()
    process.kill()
    while found.is_alive():
        time.sleep(0.01)
    assert ProcessId.of(process.pid) == found  # unreaped, but dead
    process.communicate()
    with pytest.raises(ProcessLookupError):
        ProcessId.of(process.pid)


def test_only_the_newest_logs_are_kept():
    folder = registry.logs_folder()
    for n in range(30):
        (folder / f"20200101-0000{n:02}-old-{n}.log").touch()
    with launch("ok") as engine:
        kept = sorted(path.name for path in folder.iterdir())
        assert len(kept) == 21
        assert kept[0] == "20200101-000010-old-10.log"
        assert engine.log_path.name in kept


def test_a_deep_temporary_folder_does_not_make_the_sockets_path_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with launch("ok") as engine:
        assert engine.state == "ready"


def test_a_supervisor_that_gets_no_spec_goes_away():
    ours, theirs = socket.socketpair()
    supervisor = subprocess.Popen(
        [sys.executable, "-P", "-m", "sgl_jupyter.lifecycle.supervisor"], stdin=theirs.fileno()
    )
    theirs.close()
    ours.sendall(b'{"entry": ')
    ours.close()
    assert supervisor.wait(20) == 0
