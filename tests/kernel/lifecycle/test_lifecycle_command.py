"""SGLang's way to start a server: `launch_server_cmd`, `wait_for_server`, `terminate_process`."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sgl_jupyter.lifecycle import EngineDiedError, engines, launch
from sgl_jupyter.utils import launch_server_cmd, terminate_process, wait_for_server


@contextmanager
def answering(*statuses: int, path: str = "/health_generate") -> Iterator[str]:
    """The URL of a server that answers on `path` with each of `statuses` in turn, the last one for ever; elsewhere 404."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = 404 if self.path != path else left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_the_tutorials_first_cell(capfd: pytest.CaptureFixture[str]):
    process, port = launch_server_cmd("python -m kernel_engine.launch_server --model-path org/tiny --host 127.0.0.1")
    wait_for_server(f"http://localhost:{port}")
    with urllib.request.urlopen(f"http://localhost:{port}/argv") as response:
        answer = json.load(response)
    assert answer["pid"] == process.pid
    assert answer["argv"] == ["--model-path", "org/tiny", "--host", "127.0.0.1", "--port", str(port)]
    assert "fired up" in process.logs()
    assert (process.poll(), process.name) == (None, "tiny")
    terminate_process(process)
    assert (process.poll(), process.returncode, process.wait()) == (-signal.SIGTERM,) * 3
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 5)
    assert capfd.readouterr() == ("", "")


def test_a_server_that_answers_is_listed_as_ready():
    process, port = launch_server_cmd("python -m kernel_engine.launch_server --model-path ok --host 127.0.0.1")
    wait_for_server(f"http://127.0.0.1:{port}/", process=process, timeout=20)
    assert process.state == "ready"
    assert [(e.state, e.url, e.pid) for e in engines()] == [("ready", f"http://127.0.0.1:{port}", process.pid)]
    process.terminate()


def test_the_command_is_split_like_a_shells_and_sets_its_environment(tmp_path):
    code = "import os, sys; print(sys.argv[1:], os.environ['GREETING'], os.getcwd())"
    process, port = launch_server_cmd(f"GREETING='hello you' python -c \"{code}\" \\\n  'a b' --flag")
    assert process.wait(20) == 0
    assert process.logs() == f"['a b', '--flag', '--port', '{port}'] hello you {os.getcwd()}"
    terminate_process(process)


@pytest.mark.parametrize(
    ("command", "port", "wanted"),
    [
        ("python -c pass --port 31234", None, 31234),
        ("python -c pass --port=31234", None, 31234),
        ("python -c pass", 31234, 31234),
    ],
)
def test_a_port_that_is_given_is_used(command: str, port: int | None, wanted: int):
    process, got = launch_server_cmd(command, port=port)
    assert got == wanted
    terminate_process(process)


@pytest.mark.parametrize(
    ("command", "error", "words"),
    [
        ("", ValueError, "names no program"),
        ("A=1 B=2", ValueError, "names no program"),
        ("python -c 'unfinished", ValueError, "cannot be split into words: No closing quotation"),
        ("python -m server > log.txt", ValueError, "remove '>'"),
        ("cd /tmp && python -m server", ValueError, "remove '&&'"),
        ("python -m server --port many", ValueError, "--port many: it must be a number"),
        ("python -m server --port 31234", ValueError, "--port 31234, but port is 31235"),
        ("no-such-program --flag", FileNotFoundError, "no-such-program"),
    ],
)
def test_a_command_that_cannot_be_run_says_why(command: str, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        launch_server_cmd(command, port=31235)


def test_sglangs_server_is_replaced_by_ours_where_it_is_not_installed(capsys: pytest.CaptureFixture[str]):
    process, port = launch_server_cmd("python3 -m sglang.launch_server --model-path ok --host 127.0.0.1")
    assert (
        capsys.readouterr().out
        == "sglang is not installed here: running kernel_engine.launch_server with the same flags.\n"
    )
    wait_for_server(f"http://localhost:{port}", timeout=20)
    terminate_process(process)


def test_a_server_that_dies_ends_the_wait_with_its_last_words():
    _, port = launch_server_cmd("python -m kernel_engine.launch_server --model-path broken")
    with pytest.raises(EngineDiedError, match=r"exited with code 1(?s:.*)no such model: broken"):
        wait_for_server(f"http://localhost:{port}")


def test_a_server_that_lost_its_port_to_another_is_not_taken_for_that_one():
    with answering(200) as url:
        port = int(url.rpartition(":")[2])
        process, _ = launch_server_cmd(
            "python -m kernel_engine.launch_server --model-path pause --host 127.0.0.1", port=port
        )
        while process.is_running():
            process.watch(5)
        with pytest.raises(EngineDiedError, match="Address already in use"):
            wait_for_server(url)


def test_popens_wait_waits_for_the_end():
    process, _ = launch_server_cmd("python -c 'import time, sys; time.sleep(0.5); sys.exit(7)'")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    assert process.wait(20) == 7
    process.terminate()


def test_the_timeout_is_kept_whether_nothing_answers_or_something_says_not_yet():
    with pytest.raises(TimeoutError, match=r"not ready after 0.3 s(?s:.*)/health_generate"):
        wait_for_server("http://127.0.0.1:9", timeout=0.3)
    with answering(503) as url, pytest.raises(TimeoutError, match="answers 503"):
        wait_for_server(url, timeout=0.3)


def test_waiting_goes_on_until_the_server_can_generate():
    with answering(503, 503, 200) as url:
        wait_for_server(url, timeout=20)


def test_a_server_without_health_generate_is_asked_for_its_models():
    with answering(200, path="/v1/models") as url:
        wait_for_server(url, timeout=20)


@pytest.mark.parametrize(
    ("status", "error", "words"), [(401, PermissionError, "api_key="), (400, RuntimeError, "answers 400")]
)
def test_an_answer_that_waiting_will_not_mend_is_an_error(status: int, error: type[Exception], words: str):
    with answering(status) as url, pytest.raises(error, match=words):
        wait_for_server(url)


def test_the_key_is_passed_on_and_known_of_engines_of_ours():
    with launch("ok") as engine:
        wait_for_server(str(engine.url), timeout=20)
        wait_for_server(str(engine.url), process=engine, timeout=20)
        with pytest.raises(PermissionError):
            wait_for_server(str(engine.url), api_key="wrong", timeout=20)


@pytest.mark.parametrize("url", ["localhost:30000", "", "ftp://localhost"])
def test_what_is_no_url_is_refused(url: str):
    with pytest.raises(ValueError, match="base_url must look like"):
        wait_for_server(url)


def test_an_ordinary_subprocess_is_watched_and_ended_with_its_children_too():
    family = "import subprocess as s, sys; p = s.Popen([sys.executable, '-c', 'input()'], stdin=-1); print(p.pid, flush=True)"
    family += "; p.wait()"
    process = subprocess.Popen([sys.executable, "-c", family], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    child = int(process.stdout.readline())
    process.stdout.close()
    with pytest.raises(TimeoutError):
        wait_for_server("http://127.0.0.1:9", process=process, timeout=0.3)
    terminate_process(process)
    assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{child}/exe") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{child}/exe")  # a zombie, left to init, has none
    terminate_process(process)
    with pytest.raises(EngineDiedError, match="exited with code -9"):
        wait_for_server("http://127.0.0.1:9", process=process)
