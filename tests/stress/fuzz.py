"""`python -m tests.stress.fuzz [REQUESTS]`: hostile requests, and one good request that must not notice.

Half of them come from schemathesis on the engine's own OpenAPI description, both valid and broken ones; half are random bytes
and mutilated JSON. None may be answered with 5xx, and a good request that is repeated all the while must give the same tokens.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import threading
from collections import Counter
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy
from schemathesis.generation import GenerationMode

from .server import Server, serve, verdict

GOOD = {"text": "The capital of France is", "sampling_params": {"temperature": 0, "max_new_tokens": 24}}
BODIES = {
    "/generate": GOOD,
    "/v1/completions": {"prompt": "The capital of France is", "max_tokens": 8, "stream": True},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "logprobs": True},
    "/tokenize": {"prompt": ["The capital", "of France"]},
    "/detokenize": {"tokens": [[1, 2], [3]]},
    "/abort_request": {"rid": "nobody"},
}
DESCRIBED = ["/v1/chat/completions", "/generate", "/v1/completions", "/tokenize", "/detokenize", "/abort_request"]
OTHERS = ["/flush_cache", "/health", "/get_model_info", "/v1/models", "/v1/models/x", "/nothing"]
BATCH = 100
"""Examples drawn by one hypothesis run."""


class Fuzz:
    def __init__(self, server: Server, count: int):
        self.server, self.count = server, count
        self.client = httpx.Client(base_url=server.url, timeout=120)
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []

    def send(self, method: str, path: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        if b"abort_all" in content:
            return  # it would end the good request by right
        try:
            status = self.client.request(method, path, content=content, headers=headers).status_code
        except httpx.HTTPError as error:
            self.failures.append(f"{method} {path} {content[:200]!r}: {error!r}")
            return
        self.statuses[status] += 1
        if status >= 500:
            self.failures.append(f"{status} for {method} {path} {content[:300]!r}")

    def from_description(self) -> None:
        schema = schemathesis.openapi.from_url(f"{self.server.url}/openapi.json")
        targets = itertools.cycle(itertools.product(DESCRIBED, [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]))
        for number, (path, mode) in zip(range(self.count // 2 // BATCH), targets, strict=False):
            self._send_examples(path, schema[path]["POST"].as_strategy(generation_mode=mode), number)

    def _send_examples(self, path: str, cases: SearchStrategy[Any], number: int) -> None:
        @seed(number)
        @settings(max_examples=BATCH, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=cases)
        def send(case: Any) -> None:
            body = case.body
            content = body if isinstance(body, bytes) else json.dumps(body, default=str).encode(errors="replace")
            self.send("POST", path, content, {"Content-Type": "application/json"})

        send()

    def from_noise(self) -> None:
        generator = random.Random(0)
        while sum(self.statuses.values()) + len(self.failures) < self.count:
            path = generator.choice([*BODIES, *BODIES, *OTHERS])
            content = bytearray(json.dumps(BODIES.get(path, GOOD)).encode())
            for _ in range(generator.randint(1, 12)):
                content[generator.randrange(len(content))] = generator.randrange(256)
            if generator.random() < 0.3:
                content = bytearray(generator.randbytes(generator.randint(0, 400)))
            method = generator.choice(["POST"] * 8 + ["GET", "PUT", "DELETE", "PATCH"])
            self.send(method, path, bytes(content))


def repeat_good_request(server: Server, done: threading.Event, failures: list[str]) -> None:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        wanted = client.post("/generate", json=GOOD).json()["output_ids"]
        times = 0
        while not done.is_set():
            given_ids = client.post("/generate", json=GOOD).json().get("output_ids")
            times += 1
            if given_ids != wanted:
                failures.append(f"the good request gave {given_ids}, not {wanted}")
        print(f"the good request was answered {times} times")


def main(count: int) -> int:
    with serve("--context-length", "256", "--max-total-tokens", "2048", "--log-level", "warning") as server:
        fuzz, done = Fuzz(server, count), threading.Event()
        good = threading.Thread(target=repeat_good_request, args=(server, done, fuzz.failures))
        good.start()
        try:
            fuzz.from_description()
            fuzz.from_noise()
        finally:
            done.set()
            good.join()
        state = server.wait_until_idle()
        if state["used_tokens"] or state["free_tokens"] + state["cached_tokens"] != state["total"]:
            fuzz.failures.append(f"KV slots do not add up: {state}")
        log = server.log.read_text()
        fuzz.failures += [f"traceback in the log: ...{log[-2000:]}"] if "Traceback" in log else []
        print(f"{sum(fuzz.statuses.values())} requests, by status: {dict(sorted(fuzz.statuses.items()))}")
    return verdict(fuzz.failures)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
