"""Live output: what showing a fast model's text costs the kernel, for a minute, at 200 tokens a second.

The same program runs twice in a kernel, shown live and shown nowhere; the kernel's own time is the difference of the processor
time that the two take. Nothing but the display is compared: the tokens come from a backend that only waits between them.
"""

from __future__ import annotations

import argparse
from typing import Any

from jupyter_client.manager import KernelManager

from .common import begin, ratio

RATE = 200
"""Tokens a second."""
LIMIT = 60
"""Seconds that a cell may take longer than its tokens."""
SETUP = f"""
%load_ext sgl_jupyter
import asyncio, time
from sgl_jupyter import *
from sgl_jupyter.backends.base import BaseBackend, Chunk

class Metronome(BaseBackend):
    model_path = "tiny-chat"

    async def generate(self, prompt, params):
        began = time.monotonic()
        for count in range(1, params.max_new_tokens + 1):
            await asyncio.sleep(max(0, began + count / {RATE} - time.monotonic()))
            yield Chunk("token ", {{"completion_tokens": count}})

set_default_backend(Metronome())
"""
CELL = '%%sgl --view {view} --max-tokens {tokens}\nassistant(gen("x"))'


def main() -> None:
    parser = argparse.ArgumentParser(description="What live output costs the kernel.")
    parser.add_argument("--seconds", type=int, default=60, help="of text (default: 60)")
    seconds = parser.parse_args().seconds
    begin(f"Live output: {RATE} tokens a second for {seconds} s in a kernel")
    manager = KernelManager()
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LIMIT)
        _run(client, SETUP, LIMIT)
        costs, updates = {}, 0
        for view in ("none", "live"):
            before = _processor_seconds(client)
            updates = _run(client, CELL.format(view=view, tokens=RATE * seconds), seconds + LIMIT)
            costs[view] = _processor_seconds(client) - before
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    print(f"processor time {costs['live']:.2f} s live with {updates} updates, {costs['none']:.2f} s not shown")
    ratio((costs["live"] - costs["none"]) / seconds, 0.1, "of a core for the display", at_most=True)


def _run(client: Any, code: str, limit: float) -> int:
    """Run a cell; how many displays and updates it sent."""
    seen: list[str] = []
    reply = client.execute_interactive(
        code, timeout=limit, allow_stdin=False, output_hook=lambda message: seen.append(message["header"]["msg_type"])
    )
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"the cell failed: {reply['content']['evalue']}")
    return seen.count("display_data") + seen.count("update_display_data")


def _processor_seconds(client: Any) -> float:
    reply = client.execute_interactive(
        "", user_expressions={"spent": "__import__('time').process_time()"}, allow_stdin=False, timeout=LIMIT
    )
    return float(reply["content"]["user_expressions"]["spent"]["data"]["text/plain"])


if __name__ == "__main__":
    main()
