"""What programs cost beside their requests: 1,000 states in one batch, on a server in another process that answers at once.

Both sides send the same 1,000 requests over the same endpoint, once from a batch of programs and once without any, and the
processor time of this process is compared.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import psutil

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import Prompt, SamplingParams
from sgl_jupyter.lang.loop import background_loop

from .common import begin, best_of, ratio

STATES, ROUNDS = 1000, 5
THREADS, CONNECTIONS = 96 + 1, 512
"""At most so many: those for bodies and the loop's one; those of an endpoint's pool."""
INFO = json.dumps({"model_path": "tiny-chat"}).encode()
META = {"prompt_tokens": 8, "completion_tokens": 1, "cached_tokens": 0, "finish_reason": {"type": "stop", "matched": 0}}
ANSWER = b"data: " + json.dumps({"text": "Paris", "meta_info": META}).encode() + b"\n\ndata: [DONE]\n\n"


@sgl.function
def program(s: Any, number: int) -> None:
    s += f"Question {number}:" + sgl.gen("answer", max_tokens=1)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: an answer to each request, as short as HTTP allows."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
            body = INFO if head.startswith(b"GET") else ANSWER
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def serve(ready: Connection) -> None:
    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=STATES)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def server() -> Iterator[str]:
    """The URL of a server in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ready, inner = context.Pipe()
    process = context.Process(target=serve, args=(inner,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ready.recv()}"
    finally:
        process.terminate()
        process.join()


def requests_alone(endpoint: sgl.RuntimeEndpoint) -> None:
    """The requests of the batch, without programs."""

    async def one(number: int) -> None:
        async for _ in endpoint.generate(Prompt(f"Question {number}:"), SamplingParams(max_new_tokens=1)):
            pass

    async def every() -> None:
        await asyncio.gather(*map(one, range(STATES)))

    asyncio.run_coroutine_threadsafe(every(), background_loop()).result()


def processor_time(side: Callable[[], object]) -> float:
    started = time.process_time()
    side()
    return time.process_time() - started


def most(side: Callable[[], object], *readings: Callable[[], int]) -> list[int]:
    """The largest value of each reading while `side` runs."""
    done = threading.Event()
    found = [[read() for read in readings]]

    def watch() -> None:
        while not done.wait(0.01):
            found.append([read() for read in readings])

    watcher = threading.Thread(target=watch)
    watcher.start()
    side()
    done.set()
    watcher.join()
    return [max(values) for values in zip(*found, strict=True)]


def main() -> None:
    begin(f"A program's own cost: {STATES} states in one batch, one generation each, on a server that answers at once")
    this = psutil.Process()
    with server() as url:
        endpoint = sgl.RuntimeEndpoint(url)
        items = [[number] for number in range(STATES)]

        def batch() -> object:
            return program.run_batch(items, backend=endpoint)

        before = threading.active_count() + 1  # and the one that watches
        threads, connections = most(
            batch,
            lambda: threading.active_count() - before,
            lambda: sum(each.status == psutil.CONN_ESTABLISHED for each in this.net_connections("tcp")),
        )
        with_programs, alone = best_of(
            ROUNDS, lambda: processor_time(batch), lambda: processor_time(lambda: requests_alone(endpoint))
        )
    print(f"{STATES} requests: {alone:.2f} s of processor time alone, {with_programs:.2f} s as programs")
    own = (with_programs - alone) / STATES
    ratio(threads / THREADS, 1.0, f"{threads} threads for {STATES} states, over {THREADS}", at_most=True)
    ratio(connections / CONNECTIONS, 1.0, f"{connections} connections, over {CONNECTIONS}", at_most=True)
    ratio(own / 1e-3, 1.0, f"a program's own cost per gen, {own * 1e3:.2f} ms, over 1 ms", at_most=True)


if __name__ == "__main__":
    main()
