"""From nothing to the first token: importing the package, launching tiny-chat until it is ready, and one streamed token."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import httpx

import sgl_jupyter as sgl

from .common import begin, ratio

IMPORT = "import time; t = time.perf_counter(); import sgl_jupyter; print(time.perf_counter() - t)"
ROUNDS = 5


def import_seconds() -> float:
    return float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=True, text=True).stdout)


def launch_seconds() -> tuple[float, float]:
    """Until ready, and then from a request to its first streamed token."""
    began = time.perf_counter()
    with sgl.launch("tiny-chat") as engine:
        ready = time.perf_counter() - began
        headers = {"Authorization": f"Bearer {engine.api_key}"}
        body = {"text": "The capital city of France is", "stream": True}
        with httpx.Client(base_url=str(engine.url), headers=headers) as client:
            began = time.perf_counter()
            with client.stream("POST", "/generate", json=body) as response:
                next(line for line in response.iter_lines() if line.startswith("data:"))
                first = time.perf_counter() - began
    return ready, first


def main() -> None:
    begin("Launch: tiny-chat, from the package's import to the first token; medians")
    imported = statistics.median(import_seconds() for _ in range(ROUNDS))
    ready, first = (statistics.median(times) for times in zip(*(launch_seconds() for _ in range(ROUNDS)), strict=True))
    ratio(imported / 0.3, 1.0, f"import sgl_jupyter, {imported:.3f} s, over 0.3 s", at_most=True)
    ratio(first / 0.15, 1.0, f"first token over HTTP, {first * 1e3:.0f} ms, over 150 ms", at_most=True)
    ratio(ready / 5.0, 1.0, f"launch until ready, {ready:.2f} s, over 5 s", at_most=True)


if __name__ == "__main__":
    main()
