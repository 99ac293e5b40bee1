"""The engine's settings, under SGLang's names, and the command line that sets them."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import LoadError


def _flag(default: Any, help: str, **options: Any) -> Any:
    return field(default=default, metadata={"help": help, **options})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerArgs:
    """What `python -m kernel_engine.launch_server` takes. Sizes are in tokens; None means: decided from the machine."""

    model_path: str = _flag("", "folder in Hugging Face format, hub id, or bundled name (tiny-chat)", required=True)
    tokenizer_path: str | None = _flag(None, "where the tokenizer is, if not with the model")
    served_model_name: str | None = _flag(None, "name in /v1/models; the model path by default")
    load_format: str = _flag(
        "auto",
        "auto, safetensors, or dummy: random weights of the config's shape",
        choices=["auto", "safetensors", "dummy"],
    )
    trust_remote_code: bool = _flag(False, "run code that comes with the model")
    revision: str | None = _flag(None, "branch, tag or commit on the hub")
    download_dir: str | None = _flag(None, "where downloads are kept")
    json_model_override_args: str = _flag("{}", "JSON object of config.json values to replace")
    dtype: str = _flag(
        "auto", "of weights and cache", choices=["auto", "half", "float16", "bfloat16", "float", "float32"]
    )
    device: str | None = _flag(None, "cpu or cuda", choices=["cpu", "cuda"])
    context_length: int | None = _flag(None, "longest context; the model's own by default")
    host: str = _flag("127.0.0.1", "address to listen on")
    port: int = _flag(30000, "port to listen on; 0 takes a free one")
    api_key: str | None = _flag(None, "ask for `Authorization: Bearer KEY`")
    api_key_file: str | None = _flag(None, "read the API key from this file, which keeps it out of process lists")
    ready_file: str | None = _flag(None, "write url, port and pid to this file as JSON once the server is ready")
    mem_fraction_static: float | None = _flag(None, "share of the memory for weights and KV cache")
    max_total_tokens: int | None = _flag(None, "size of the KV cache")
    max_running_requests: int | None = _flag(None, "requests computed together")
    chunked_prefill_size: int | None = _flag(None, "prompt tokens computed in one step; -1: no chunking")
    max_prefill_tokens: int = _flag(16384, "prompt tokens of all new requests in one step")
    schedule_policy: str = _flag("lpm", "which waiting request is next", choices=["lpm", "fcfs", "random"])
    schedule_conservativeness: float = _flag(1.0, "more reserves more room for outputs, which retracts less")
    disable_radix_cache: bool = _flag(False, "share no prefixes")
    disable_cuda_graph: bool = _flag(False, "launch kernels one by one")
    random_seed: int | None = _flag(None, "of sampling and of dummy weights")
    stream_interval: int = _flag(1, "tokens per streamed event")
    decode_log_interval: int = _flag(40, "decoding steps per log line")
    log_level: str = _flag("info", "of the log", choices=["debug", "info", "warning", "error"])
    log_requests: bool = _flag(False, "log each request's parameters and figures")
    enable_metrics: bool = _flag(False, "serve /metrics in Prometheus' format")
    watchdog_timeout: float = _flag(300.0, "seconds that a step may take before the process ends itself")

    def __post_init__(self) -> None:
        bounds = {
            "context_length": 1, "max_total_tokens": 16, "max_running_requests": 1, "max_prefill_tokens": 1,
            "stream_interval": 1, "decode_log_interval": 1,
        }  # fmt: skip
        for name, least in bounds.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise LoadError(f"--{name.replace('_', '-')} must be at least {least}, got {value}.")
        if self.mem_fraction_static is not None and not 0 < self.mem_fraction_static <= 1:
            raise LoadError(f"--mem-fraction-static must be in (0, 1], got {self.mem_fraction_static}.")
        if self.chunked_prefill_size is not None and self.chunked_prefill_size != -1 and self.chunked_prefill_size < 1:
            raise LoadError(f"--chunked-prefill-size must be -1 or at least 1, got {self.chunked_prefill_size}.")
        if self.api_key == "":
            raise LoadError("--api-key must not be empty.")
        if not 0 <= self.port < 65536:
            raise LoadError(f"--port must be in [0, 65535], got {self.port}.")

    @property
    def model_name(self) -> str:
        return self.served_model_name or self.model_path

    def model_overrides(self) -> dict[str, Any]:
        """`json_model_override_args` as a dict."""
        try:
            overrides = json.loads(self.json_model_override_args)
        except json.JSONDecodeError as error:
            raise LoadError(f"--json-model-override-args is not JSON: {error}.") from None
        if not isinstance(overrides, dict):
            raise LoadError("--json-model-override-args must be a JSON object.")
        return overrides

    def secret(self) -> str | None:
        """The API key, wherever it was given. Raises `LoadError` rather than let everybody in for want of one."""
        if self.api_key_file is None:
            return self.api_key
        try:
            key = Path(self.api_key_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise LoadError(f"--api-key-file {self.api_key_file!r} cannot be read: {error}.") from None
        if not key:
            raise LoadError(f"--api-key-file {self.api_key_file!r} is empty.")
        return key

    def public(self) -> dict[str, Any]:
        """Every setting but secrets, for logs and `/server_info`."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("api_key")}


def parse_args(arguments: list[str]) -> ServerArgs:
    """Read a command line; exits with a usage message if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m kernel_engine.launch_server",
        description="Serve a language model over SGLang's HTTP protocol.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    types = {"int": int, "int | None": int, "float": float, "float | None": float}
    for each in fields(ServerArgs):
        options = dict(each.metadata)
        if each.type == "bool":
            options["action"] = "store_true"
        else:
            options["type"] = types.get(str(each.type), str)
            options["default"] = each.default
        parser.add_argument(f"--{each.name.replace('_', '-')}", dest=each.name, **options)
    values = vars(parser.parse_args(arguments))
    try:
        return ServerArgs(**values)
    except LoadError as error:
        parser.error(str(error))
