"""Servers started by a command line, SGLang's way: `launch_server_cmd`, and `wait_for_server` for whatever answers at a URL."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .handle import engines
from .health import LOOPBACK, wait_until_healthy
from .process import SupervisedProcess, new_entry
from .servers import free_port

SHELL_WORDS = {"&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"}


class ServerProcess(SupervisedProcess):
    """A server that a command line started. Unlike an `EngineHandle`, it is waited for like a `subprocess.Popen`."""

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code once the process is dead. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.is_running():
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(self.name, timeout or 0.0)
            self.watch(left)
        return self.returncode


def launch_server_cmd(command: str, host: str = "0.0.0.0", port: int | None = None) -> tuple[ServerProcess, int]:
    """Start the server that `command` describes, on `port` or a free one; return its process and its port.

    The command is split like a shell's, not run by one; KEY=VALUE words in front become its environment, and `python` means
    the kernel's. `--port` is added unless it is there. The server ends with the kernel, and writes to a log of its own.
    `host` is where a free port is looked for; as with SGLang, it is the command that says where to listen.
    """
    env, argv = _parse(command)
    argv = _with_installed_server(argv)
    in_command = _port_option(argv)
    if in_command is None:
        port = port or free_port(host)
        argv += ["--port", str(port)]
    elif port in (None, in_command):
        port = in_command
    else:
        raise ValueError(f"command has --port {in_command}, but port is {port}: give one of them")
    model = _option(argv, "--model-path") or _option(argv, "--model") or ""
    url, api_key = f"http://127.0.0.1:{port}", _option(argv, "--api-key")
    entry = new_entry(Path(model).name or Path(argv[0]).name, model, url=url, api_key=api_key)
    return ServerProcess.start(entry, argv, env), port


def wait_for_server(
    base_url: str,
    timeout: float | None = None,
    *,
    process: SupervisedProcess | subprocess.Popen[Any] | None = None,
    api_key: str | None = None,
) -> None:
    """Return once the server at `base_url` can generate; meanwhile show the last line of its log.

    Watches `process`, or else the engine of this user that was launched for the URL's port. Raises EngineDiedError as soon as
    that is dead, TimeoutError after `timeout` seconds, PermissionError if the server asks for another key, RuntimeError if it
    answers with another error that waiting will not mend, and WaitInterrupted when the user interrupts.
    """
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"base_url must look like http://localhost:30000, not {base_url!r}")
    if process is None and address.hostname in LOOPBACK:
        process = _launched_for(address.port)
    if api_key is None and isinstance(process, SupervisedProcess):
        api_key = process.api_key
    wait_until_healthy(base_url.rstrip("/"), process=process, api_key=api_key, timeout=timeout)


def _launched_for(port: int | None) -> SupervisedProcess | None:
    """The newest engine of this user whose URL has `port`."""
    return next((e for e in reversed(engines()) if e.url and urlsplit(e.url).port == port), None)


def _parse(command: str) -> tuple[dict[str, str], list[str]]:
    """The environment that `command` sets in front, and its words. Raises ValueError if it cannot be run as it is."""
    try:
        words = shlex.split(command.replace("\\\n", " "))
    except ValueError as error:
        raise ValueError(f"command cannot be split into words: {error}") from None
    env = {}
    while words and re.match(r"[A-Za-z_]\w*=", words[0]):
        key, _, value = words.pop(0).partition("=")
        env[key] = value
    if not words:
        raise ValueError("command names no program to run")
    if shell_word := next((word for word in words if word in SHELL_WORDS), None):
        raise ValueError(f"command is not run by a shell: remove {shell_word!r}; output goes to the process's log_path")
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    elif shutil.which(words[0]) is None:
        raise FileNotFoundError(f"command starts with {words[0]!r}, which is no program on the PATH")
    return env, words


def _with_installed_server(argv: list[str]) -> list[str]:
    """`argv`, with the engine of this project where it asks for SGLang's and the kernel's Python has none."""
    if argv[:3] != [sys.executable, "-m", "sglang.launch_server"] or find_spec("sglang"):
        return argv
    print("sglang is not installed here: running kernel_engine.launch_server with the same flags.")
    return [sys.executable, "-m", "kernel_engine.launch_server", *argv[3:]]


def _option(argv: Sequence[str], option: str) -> str | None:
    """The value of `--option value` or `--option=value`, the last of several."""
    value = None
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        if word == option:
            value = following
        elif word.startswith(option + "="):
            value = word.partition("=")[2]
    return value


def _port_option(argv: Sequence[str]) -> int | None:
    value = _option(argv, "--port")
    if value is None:
        return None
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise ValueError(f"command has --port {value}: it must be a number from 1 to 65535, or left out")
    return int(value)
