"""What engines are doing now: their requests, speed and memory, as far as they and the operating system tell."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .hardware import gpu_memory_by_pid
from .health import http_client
from .process import SupervisedProcess

if TYPE_CHECKING:
    from .handle import EngineHandle
    from .remote import RemoteEngine

PATIENCE = 2.0
"""Seconds for an engine to tell. One that is too busy to answer is listed without."""


@dataclass(frozen=True, slots=True)
class Load:
    """None for what is not known."""

    requests: int | None = None
    """Those that run or wait."""
    tokens_per_second: float | None = None
    memory: int | None = None
    """Bytes on the GPU, or of main memory where the engine has none there."""
    on_gpu: bool | None = None


def load_of(engine: EngineHandle | RemoteEngine) -> Load:
    """What an engine does now. Never fails; asks for at most `PATIENCE` seconds."""
    memory, on_gpu = _memory(engine.pid) if isinstance(engine, SupervisedProcess) else (None, None)
    if not engine.url or engine.state != "ready":
        return Load(memory=memory, on_gpu=on_gpu)
    states = _server_info(engine.url, engine.api_key).get("internal_states") or [{}]
    state: dict[str, Any] = states[0] if isinstance(states, list) else states
    running = state.get("running_requests")
    return Load(
        requests=None if running is None else running + state.get("waiting_requests", 0),
        tokens_per_second=state.get("last_gen_throughput"),
        memory=memory,
        on_gpu=on_gpu,
    )


def _server_info(url: str, api_key: str | None) -> dict[str, Any]:
    import httpx

    with suppress(httpx.HTTPError, ValueError), http_client(url, api_key, PATIENCE) as client:
        info = client.get(f"{url}/get_server_info").raise_for_status().json()
        return info if isinstance(info, dict) else {}
    return {}


def _memory(pid: int) -> tuple[int | None, bool | None]:
    """What a process and its children hold, and whether that is on a GPU."""
    import psutil

    try:
        engine = psutil.Process(pid)
        family = [engine, *engine.children(recursive=True)]
        on_gpu = gpu_memory_by_pid()
        gpu = sum(on_gpu.get(member.pid, 0) for member in family)
        return gpu or sum(member.memory_info().rss for member in family), gpu > 0
    except (psutil.Error, ValueError):
        return None, None
