"""The process: how it starts, what it logs, whom it lets in, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import openai
import psutil
import pytest

from kernel_engine.async_engine import AsyncEngine
from kernel_engine.server import Server
from kernel_engine.server_args import ServerArgs

from ..engine.support import byte_tokenizer
from .support import COMMAND, ServerProcess, running_server

KEY = "a-secret-that-nobody-sees"


@pytest.fixture(scope="module")
def guarded(config_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Random weights from a config, behind a key."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "key").write_text(KEY + "\n")
    arguments = ["--model-path", str(config_folder), "--load-format", "dummy", "--api-key-file", str(folder / "key")]
    with running_server(folder, *arguments, "--decode-log-interval", "10", "--random-seed", "3") as server:
        yield server


def allowed(server: ServerProcess, key: str = KEY):
    return server.client(headers={"Authorization": f"Bearer {key}"})


def test_random_weights_from_a_config(guarded: ServerProcess):
    with allowed(guarded) as client:
        body = {"text": "hello", "sampling_params": {"temperature": 0, "max_new_tokens": 30, "ignore_eos": True}}
        answers = [client.post("/generate", json=body).json() for _ in range(2)]
    assert answers[0]["meta_info"]["completion_tokens"] == 30
    assert answers[0]["text"] == answers[1]["text"]


@pytest.mark.parametrize("path", ["/get_model_info", "/server_info", "/v1/models", "/flush_cache", "/nonsense"])
def test_without_the_key_nothing_is_told(guarded: ServerProcess, path: str):
    for client in (
        guarded.client(),
        allowed(guarded, "wrong"),
        allowed(guarded, KEY[:-1]),
        allowed(guarded, KEY + "x"),
    ):
        with client:
            response = client.get(path)
        assert (response.status_code, response.json()) == (401, {"error": "Unauthorized"})


def test_with_the_key_all_is_as_usual(guarded: ServerProcess):
    with allowed(guarded) as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/nonsense").status_code == 404


def test_the_key_opens_openais_routes(guarded: ServerProcess):
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.completions.create(model="any", prompt="a", max_tokens=1)
        assert client.with_options(api_key=KEY).completions.create(model="any", prompt="a", max_tokens=1).choices


def test_health_needs_no_key(guarded: ServerProcess):
    assert (guarded.get("/health").status_code, guarded.get("/health_generate").status_code) == (200, 200)


def test_the_key_is_nowhere_to_be_read(guarded: ServerProcess):
    assert KEY not in guarded.log
    assert KEY not in " ".join(psutil.Process(guarded.process.pid).cmdline())
    with allowed(guarded) as client:
        assert KEY not in client.get("/server_info").text


def test_the_log_reads_as_sglangs(guarded: ServerProcess):
    with allowed(guarded) as client:
        params = {"temperature": 0, "max_new_tokens": 40, "ignore_eos": True}
        client.post("/generate", json={"text": "log this, please", "sampling_params": params})
    lines = guarded.log.splitlines()
    stamp = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "
    wanted = [
        r"server_args=ServerArgs\(model_path=.*port=\d+.*\)",
        r"Load weight begin\..*",
        r"Load weight end\. type=Qwen2ForCausalLM, dtype=torch\.\w+, .*",
        r"KV Cache is allocated\. #tokens: \d+, K size: \d+\.\d\d GB, V size: \d+\.\d\d GB",
        r"max_total_num_tokens=\d+, chunked_prefill_size=\d+, max_prefill_tokens=\d+, max_running_requests=\d+, context_len=256",
        r"Prefill batch\. #new-seq: 1, #new-token: \d+, #cached-token: \d+, token usage: \d\.\d\d, #running-req: 0, #queue-req: 0",
        r"The server is fired up and ready to roll!",
        r'INFO: +127\.0\.0\.1:\d+ - "POST /generate HTTP/1\.1" 200.*',
        r"Decode batch\. #running-req: 1, #token: \d+, token usage: \d\.\d\d, cuda graph: \w+, "
        r"gen throughput \(token/s\): \d+\.\d\d, #queue-req: 0",
    ]
    for pattern in wanted:
        assert any(re.fullmatch(stamp + pattern, line) for line in lines), pattern


def test_a_term_signal_ends_it_with_zero(config_folder: Path, tmp_path: Path):
    with running_server(tmp_path, "--model-path", str(config_folder), "--load-format", "dummy") as server:
        stream = server.client()
        body = {"text": "a", "stream": True, "sampling_params": {"max_new_tokens": 200, "ignore_eos": True}}
        with stream, stream.stream("POST", "/generate", json=body) as response:
            next(response.iter_text())
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(15) == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize("path", ["/health", "/health_generate"])
@pytest.mark.parametrize(("ready", "failure"), [(False, None), (True, RuntimeError("dead"))])
def test_health_is_503_before_warm_up_and_after_a_failure(path: str, ready: bool, failure: Exception | None):
    model = SimpleNamespace(
        tokenizer=byte_tokenizer(), default_sampling={}, adapters=SimpleNamespace(names=[]), sight=None
    )
    dead = SimpleNamespace(failure=failure, model=model, context=64)

    async def never(timeout: float) -> bool:
        return False

    routes = Server(cast(AsyncEngine, SimpleNamespace(engine=dead, is_healthy=never)), ServerArgs(model_path="x"))
    routes.ready = ready

    async def ask() -> int:
        transport = httpx.ASGITransport(routes.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            return (await client.get(path)).status_code

    assert asyncio.run(ask()) == 503


def test_health_is_false_until_it_is_ready(config_folder: Path, tmp_path: Path):
    """From the first answer on, health is 503 until the log says ready, and 200 from then on."""
    log_path = tmp_path / "log.txt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log_path.open("wb") as log:
        arguments = ["--model-path", str(config_folder), "--load-format", "dummy", "--port", str(port)]
        process = subprocess.Popen([*COMMAND, *arguments], stdout=log, stderr=subprocess.STDOUT)
    server = ServerProcess(process, f"http://127.0.0.1:{port}", log_path)
    try:
        limit = time.monotonic() + 60
        while True:
            assert time.monotonic() < limit, server.log
            assert process.poll() is None, server.log
            was_ready = "fired up" in server.log
            try:
                status = server.get("/health").status_code
            except Exception:
                time.sleep(0.01)
                continue
            assert status == 200 if was_ready else status in (200, 503)
            assert status == 503 or "fired up" in server.log
            if was_ready:
                break
    finally:
        process.terminate()
        process.wait(15)


FAILURES: dict[str, tuple[list[str], int, str]] = {
    "unknown flag": (["--model-path", "tiny-chat", "--nonsense"], 2, "unrecognized arguments: --nonsense"),
    "no model": ([], 2, "the following arguments are required: --model-path"),
    "not a number": (["--model-path", "tiny-chat", "--port", "x"], 2, "argument --port: invalid int value"),
    "bad port": (["--model-path", "tiny-chat", "--port", "70000"], 2, "--port must be in [0, 65535], got 70000"),
    "bad share": (["--model-path", "tiny-chat", "--mem-fraction-static", "2"], 2, "--mem-fraction-static must be in (0, 1]"),
    "two GPUs": (["--model-path", "tiny-chat", "--tp-size", "2"], 2, "--tp-size is not supported: this engine runs on one GPU"),
    "no such GPU": (["--model-path", "CONFIG", "--load-format", "dummy", "--base-gpu-id", "63"], 3, "sees no such GPU here"),
    "no folder": (["--model-path", "./no/such/folder"], 3, "'./no/such/folder' is not a folder"),
    # Fails while a folder without tokenizer files is given an empty tokenizer, which encodes every text as nothing.
    "no tokenizer": (["--model-path", "CONFIG_ONLY", "--load-format", "dummy"], 3, "no tokenizer in"),
    "no weights": (["--model-path", "CONFIG"], 3, "no weights in"),
    "taken port": (["--model-path", "tiny-chat", "--port", "TAKEN"], 3, "cannot listen on 127.0.0.1:"),
    "no key file": (["--model-path", "CONFIG", "--load-format", "dummy", "--api-key-file", "no-such-file"], 3, "--api-key-file"),
    "empty key": (["--model-path", "tiny-chat", "--api-key", ""], 2, "--api-key must not be empty"),
    "empty key file": (["--model-path", "CONFIG", "--load-format", "dummy", "--api-key-file", "EMPTY"], 3, "--api-key-file"),
    "pool too big": (
        ["--model-path", "CONFIG", "--load-format", "dummy", "--max-total-tokens", "99999999999"], 3, "the KV cache needs"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def ends(config_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, str]]]:
    """Exit code and output of each command in `FAILURES`, run two at a time."""
    folder = tmp_path_factory.mktemp("failures")
    (folder / "only").mkdir()
    (folder / "only" / "config.json").write_text((config_folder / "config.json").read_text())
    (folder / "empty").write_text("\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {
            "CONFIG": str(config_folder), "CONFIG_ONLY": str(folder / "only"), "EMPTY": str(folder / "empty"),
            "TAKEN": str(taken.getsockname()[1]),
        }  # fmt: skip
        found = {}
        todo = list(FAILURES.items())
        while todo:
            pair, todo = todo[:2], todo[2:]
            running = {
                name: subprocess.Popen(
                    [*COMMAND, "--port", "0", *(names.get(a, a) for a in arguments)],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
                for name, (arguments, *_) in pair
            }
            for name, process in running.items():
                try:
                    output, _ = process.communicate(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    output = process.communicate()[0] + "\nstill running after 60 s"
                found[name] = (process.returncode, output)
        yield found


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_start_ends_with_a_code_and_a_sentence(name: str, ends: dict[str, tuple[int, str]]):
    _, code, message = FAILURES[name]
    returned, output = ends[name]
    assert returned == code, output
    assert message in output
    assert "Traceback" not in output


def test_the_ready_file_says_where(guarded: ServerProcess):
    ready = json.loads((guarded.log_path.parent / "ready.json").read_text())
    assert ready["url"] == guarded.url
    assert ready["port"] == int(guarded.url.rsplit(":", 1)[1])
    assert ready["pid"] == guarded.process.pid
