"""The servers that `launch` can start: what each needs, its command line, and how it is told its API key.

Flags have SGLang's names whatever the server is; those that vLLM calls otherwise are translated. No API key is ever on a command
line, where every user of the machine could read it.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal
from urllib.parse import urlsplit

from .hardware import count_gpus
from .registry import Entry

EngineKind = Literal["kernel", "sglang", "vllm"]
HOST = "127.0.0.1"
PORTS = range(30000, 32768)
"""SGLang's range, as far as it is clear of the ports that Linux gives to outgoing connections."""
TENSOR_PARALLEL = ("tp_size", "tp", "tensor_parallel_size")
PIPELINE_PARALLEL = ("pp_size", "pp", "pipeline_parallel_size")
VLLM_NAMES = {
    "tp_size": "tensor_parallel_size",
    "tp": "tensor_parallel_size",
    "pp_size": "pipeline_parallel_size",
    "pp": "pipeline_parallel_size",
    "dp_size": "data_parallel_size",
    "dp": "data_parallel_size",
    "context_length": "max_model_len",
    "mem_fraction_static": "gpu_memory_utilization",
    "max_running_requests": "max_num_seqs",
    "max_prefill_tokens": "max_num_batched_tokens",
    "random_seed": "seed",
    "tokenizer_path": "tokenizer",
    "disable_radix_cache": "no_enable_prefix_caching",
    "disable_cuda_graph": "enforce_eager",
}
"""What vLLM calls SGLang's flags. Those that have the same name in both, as dtype has, need no translation."""


@dataclass(frozen=True)
class Command:
    """What to run for one engine."""

    argv: list[str]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts to put into the engine's private folder, by their names there."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """One kind of server."""

    title: str
    packages: tuple[str, ...]
    """Those that it cannot do without."""
    install: str
    """The command that installs them."""
    least_gpus: int
    most_gpus: int | None = None
    set_by_launch: frozenset[str]
    """Flags that are not the user's to give."""
    tells_its_url: bool
    """Whether it takes a free port itself and writes where it listens; others are given a port, and asked."""
    write: Callable[[Entry, dict[str, Any]], Command]
    """The command without its Python, for an entry and the user's flags."""

    def command(
        self, entry: Entry, flags: Mapping[str, Any], extra: Sequence[str], python: str | None = None
    ) -> Command:
        """The whole command line.

        Args:
            flags: the user's, by SGLang's names.
            extra: words for the end of the command line.
            python: the interpreter of the environment in which the server is installed, if not this process's.

        Raises:
            TypeError: a flag is not the user's to give.
            FileNotFoundError: there is no such `python`.
            ModuleNotFoundError: the server is not installed.
            RuntimeError: this machine has too few GPUs.
        """
        if clashing := self.set_by_launch & flags.keys():
            raise TypeError(f"launch() sets {', '.join(sorted(clashing))} itself")
        self._check_packages(python)
        self._check_gpus(flags)
        written = self.write(entry, dict(flags))
        # -P: modules in the notebook's folder must not stand in for installed ones. Pythons before 3.11 do not know it.
        start = [python, "-m"] if python else [sys.executable, "-P", "-m"]
        return Command([*start, *written.argv, *extra], written.env, written.files)

    def _check_packages(self, python: str | None) -> None:
        if python and shutil.which(python) is None:
            raise FileNotFoundError(f"python={python!r} is no program that can be run")
        if missing := [package for package in self.packages if not _is_installed(package, python)]:
            where = f" for {python}" if python else ""
            raise ModuleNotFoundError(
                f"{self.title} needs the package {missing[0]!r}, which is not installed{where}: {self.install}",
                name=missing[0],
            )

    def _check_gpus(self, flags: Mapping[str, Any]) -> None:
        asked = _gpus_per_node(flags)
        if self.most_gpus and asked > self.most_gpus:
            raise RuntimeError(
                f'{self.title} computes on one GPU, and the flags ask for {asked}: launch with engine="sglang" or "vllm"'
            )
        wanted = max(self.least_gpus, asked if asked > 1 else 0)
        if not wanted or flags.get("device", "cuda") != "cuda" or flags.get("distributed_executor_backend") == "ray":
            return  # there is nothing to count, or it is for others to count
        if (found := count_gpus()) < wanted:
            raise RuntimeError(f"{self.title} needs {_gpus(wanted)} for these flags, and this machine has {found}")


def command_line(flags: Mapping[str, Any]) -> list[str]:
    """Flags as words: True becomes a bare flag, False and None nothing, a list several values, a dict JSON."""
    words = []
    for flag, value in flags.items():
        option = "--" + flag.replace("_", "-")
        match value:
            case None | False:
                continue
            case True:
                words += [option]
            case list() | tuple():
                words += [option, *map(str, value)]
            case dict():
                words += [option, json.dumps(value)]
            case _:
                words += [option, str(value)]
    return words


def free_port(host: str) -> int:
    """A port of `PORTS` on which nothing listens."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free on {host}")


def _kernel_engine(entry: Entry, flags: dict[str, Any]) -> Command:
    """It takes a free port itself, and says in a file where it listens once it is ready."""
    own = {"model_path": entry.model, "host": HOST, "port": 0}
    own |= {"api_key_file": entry.api_key_file, "ready_file": entry.ready_file}
    files = {entry.api_key_file.name: entry.api_key or ""}
    return Command(["kernel_engine.launch_server", *command_line(own | flags)], files=files)


def _sglang(entry: Entry, flags: dict[str, Any]) -> Command:
    """It reads flags from a YAML file too, as which JSON will do."""
    config = entry.config_file
    own = {"model_path": entry.model, "host": HOST, "port": _port(entry), "config": config}
    files = {config.name: json.dumps({"api-key": entry.api_key})}
    return Command(["sglang.launch_server", *command_line(own | flags)], files=files)


def _vllm(entry: Entry, flags: dict[str, Any]) -> Command:
    """`vllm serve`. It takes its key from the environment, which only its user can read."""
    own = {"host": HOST, "port": _port(entry)}
    translated = {VLLM_NAMES.get(flag, flag): value for flag, value in flags.items()}
    argv = ["vllm.entrypoints.cli.main", "serve", entry.model, *command_line(own | translated)]
    return Command(argv, env={"VLLM_API_KEY": entry.api_key or ""})


def _port(entry: Entry) -> int | None:
    return urlsplit(entry.url or "").port


def _is_installed(package: str, python: str | None) -> bool:
    if python is None:
        return find_spec(package) is not None
    code = "import sys; from importlib.util import find_spec; sys.exit(find_spec(sys.argv[1]) is None)"
    return subprocess.run([python, "-c", code, package], stderr=subprocess.DEVNULL).returncode == 0


def _gpus_per_node(flags: Mapping[str, Any]) -> int:
    """Over how many GPUs of this machine the flags spread one copy of the model."""
    gpus = _size(flags, *TENSOR_PARALLEL) * _size(flags, *PIPELINE_PARALLEL)
    return -(-gpus // _size(flags, "nnodes"))


def _size(flags: Mapping[str, Any], *names: str) -> int:
    """The value of the first of `names` that is given, 1 if none is."""
    for name in names:
        if name in flags:
            value = flags[name]
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 on, not {value!r}")
            return value
    return 1


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


SERVERS: Mapping[str, Server] = {
    "kernel": Server(
        title="kernel_engine",
        packages=("kernel_engine", "torch", "transformers"),
        install='pip install "sgl-jupyter[engine]"',
        least_gpus=0,
        most_gpus=1,
        set_by_launch=frozenset({"model_path", "api_key_file", "ready_file"}),
        tells_its_url=True,
        write=_kernel_engine,
    ),
    "sglang": Server(
        title="SGLang",
        packages=("sglang",),
        install="pip install sglang",
        least_gpus=1,
        set_by_launch=frozenset({"model_path", "api_key", "config"}),
        tells_its_url=False,
        write=_sglang,
    ),
    "vllm": Server(
        title="vLLM",
        packages=("vllm",),
        install="pip install vllm",
        least_gpus=0,  # it is built for CPUs too
        set_by_launch=frozenset({"model", "model_path", "api_key"}),
        tells_its_url=False,
        write=_vllm,
    ),
}
