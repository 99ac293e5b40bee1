"""`python -m kernel_engine.launch_server`: load a model and serve it until told to stop.

Exit codes: 0 after SIGTERM or SIGINT, 1 if the engine failed, 2 for a wrong command line, 3 if the model cannot be loaded.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LoadError
from .server_args import ServerArgs, parse_args
from .server_log import set_up_logging, timed
from .source import check_available, resolve_model_path

if TYPE_CHECKING:
    from .async_engine import AsyncEngine
    from .engine import EngineSettings
    from .model import Model
    from .server import Server

logger = logging.getLogger("kernel_engine")
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
EXIT_ENGINE_FAILED, EXIT_CANNOT_LOAD = 1, 3
FAREWELL_SECONDS = 10
"""After the engine failed, in which clients are told so; they read no slower than that, or lose their last words."""


def main(arguments: list[str] | None = None) -> int:
    """Run the server; returns the process's exit code."""
    try:
        args = parse_args(sys.argv[1:] if arguments is None else arguments)
        _on_stop_signals(lambda: sys.exit(0))
        set_up_logging(args)
        for sentence in args.without_effect():
            logger.warning(sentence)
        _warn_if_open(args)
        _show_only_gpu(args.base_gpu_id)
        with _listener(args.host, args.port) as listener:
            settings = args.public() | {"port": listener.getsockname()[1]}
            logger.info("server_args=ServerArgs(%s)", ", ".join(f"{k}={v!r}" for k, v in settings.items()))
            model, engine_settings = _load(args)
            return asyncio.run(_serve(model, engine_settings, args, listener))
    except LoadError as error:
        logger.error("%s", error)
        return EXIT_CANNOT_LOAD


def _load(args: ServerArgs) -> tuple[Model, EngineSettings]:
    check_available(resolve_model_path(args.model_path))
    with timed("imports", args.show_time_cost):
        from .loading import load_model
        from .sizing import resolve_settings
        from .threads import compute_alone

    began = time.monotonic()
    logger.info("Load weight begin. model=%s, load_format=%s", args.model_path, args.load_format)
    with timed("the model", args.show_time_cost):
        threads = compute_alone()
        model = load_model(args)
    logger.info(
        "Load weight end. type=%s, dtype=%s, mem usage=%.2f GB, seconds=%.1f.",
        type(model.module).__name__, model.dtype, model.weight_bytes / 1e9, time.monotonic() - began,
    )  # fmt: skip
    settings = resolve_settings(args, model, threads)
    half = settings.slots * model.kv_bytes_per_token / 2e9
    logger.info("KV Cache is allocated. #tokens: %d, K size: %.2f GB, V size: %.2f GB", settings.slots, half, half)
    logger.info(
        "max_total_num_tokens=%d, chunked_prefill_size=%d, max_prefill_tokens=%d, max_running_requests=%d, context_len=%d",
        settings.slots, settings.policy.chunk, settings.policy.max_prefill, settings.rows, model.shape.context,
    )  # fmt: skip
    return model, settings


async def _serve(model: Model, settings: EngineSettings, args: ServerArgs, listener: socket.socket) -> int:
    with timed("imports of the server", args.show_time_cost):
        import uvicorn

        from .async_engine import AsyncEngine
        from .server import Server

    def stop() -> None:
        web.should_exit = True

    def fail() -> None:
        config.timeout_graceful_shutdown = FAREWELL_SECONDS
        stop()

    with timed("the engine", args.show_time_cost):
        engine = AsyncEngine(model, settings, on_failure=fail)
        server = Server(engine, args)
    config = uvicorn.Config(
        server.app(), log_config=None, log_level=args.http_level, timeout_graceful_shutdown=1, lifespan="off", ws="none"
    )
    web = uvicorn.Server(config)
    _on_stop_signals(stop)  # uvicorn raises a signal again when it has shut down, for the handlers before its own
    _start_watchdog(engine, args.watchdog_timeout)
    serving = asyncio.create_task(web.serve(sockets=[listener]))
    try:
        while not web.started and not serving.done():
            await asyncio.sleep(0.005)
        if not serving.done():
            await _get_ready(engine, server, args, listener)
        await serving
    finally:
        engine.engine.close()
    return EXIT_ENGINE_FAILED if engine.engine.failure else 0


async def _get_ready(engine: AsyncEngine, server: Server, args: ServerArgs, listener: socket.socket) -> None:
    """Warm up, then say that the server is ready."""
    from .warmup import warm_up

    with timed("warm-up", args.show_time_cost):
        await warm_up(engine, args)
        await asyncio.to_thread(engine.engine.wait_until_loaded)
    if engine.engine.failure:
        return
    server.ready = True
    logger.info("The server is fired up and ready to roll!")
    if args.ready_file:
        host, port = args.host, listener.getsockname()[1]
        ready = {"url": f"http://{host}:{port}", "port": port, "pid": os.getpid(), "model_path": args.model_path}
        _write_atomically(Path(args.ready_file), json.dumps(ready))


def _on_stop_signals(act: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: act())


def _warn_if_open(args: ServerArgs) -> None:
    if args.secret() is None and args.host not in LOOPBACK:
        logger.warning("anybody who can reach %s may use this server: set --api-key, or --host 127.0.0.1.", args.host)


def _show_only_gpu(index: int) -> None:
    """Let CUDA, which is not there yet, see only one of the GPUs that it would see; that one is its first then."""
    if index:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else []
        if names and index >= len(names):
            raise LoadError(f"--base-gpu-id {index}: CUDA_VISIBLE_DEVICES={visible} has no such GPU.")
        os.environ["CUDA_VISIBLE_DEVICES"] = names[index] if names else str(index)


def _listener(host: str, port: int) -> socket.socket:
    """A bound socket, so that a taken port is found out before the model is loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol must be named: asyncio switches off Nagle's algorithm, 40 ms a response, for sockets that say TCP only.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise LoadError(f"cannot listen on {host}:{port}: {error.strerror or error}.") from error
    return listener


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def _start_watchdog(engine: AsyncEngine, seconds: float) -> None:
    """End the process, with every thread's stack in the log, if a step takes longer than `seconds`."""

    def watch() -> None:
        while True:
            time.sleep(min(seconds / 4, 5.0))
            stuck = time.monotonic() - engine.engine.last_progress
            if engine.engine.busy and stuck > seconds:
                logger.error("no step was finished for %.0f s; the stacks of all threads follow", stuck)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(EXIT_ENGINE_FAILED)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
