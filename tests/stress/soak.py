"""`python -m tests.stress.soak [MINUTES]`: 64 mixed clients that generate, fork, constrain, abort and go away.

At the end every KV slot must be accounted for, and the process's memory must be what it was after the first fifth of the time.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from .server import Server, serve, verdict

CLIENTS = 64
GROWTH_MIB = 40
"""What the resident memory may grow in the last four fifths of the time: noise of the allocator, not a leak per request."""
REGEX = r"\{\"city\": \"[A-Z][a-z]{2,12}\", \"size\": [0-9]{1,7}\}"
SCHEMA = (
    '{"type": "object", "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer"}}, "required": ["ok", "n"]}'
)
WORDS = (
    "capital",
    "country",
    "river",
    "question",
    "answer",
    "health",
    "sleep",
    "water",
    "music",
    "paper",
    "Paris",
    "Tokyo",
)


class Client:
    """One of the clients: it does one thing after another, chosen at random."""

    def __init__(self, number: int, session: aiohttp.ClientSession, failures: list[str], done: Counter[str]):
        self._random = random.Random(number)
        self._session, self._failures, self._done = session, failures, done

    async def run(self, until: float) -> None:
        actions: list[Callable[[], Awaitable[None]]] = [
            self.generate, self.stream, self.constrain, self.fork, self.choose, self.abort, self.leave, self.fail,
        ]  # fmt: skip
        while time.monotonic() < until:
            action = self._random.choice(actions)
            try:
                await action()
                self._done[action.__name__] += 1
            except Exception as error:
                self._failures.append(f"{action.__name__}: {error!r}")

    async def generate(self) -> None:
        answer = await self._post(self._prompt(), max_new_tokens=self._random.randint(1, 64))
        self._check(answer["meta_info"]["finish_reason"]["type"] in ("stop", "length"), answer)

    async def stream(self) -> None:
        body = self._body(self._prompt(), max_new_tokens=40) | {"stream": True}
        async with self._session.post("/generate", json=body) as response:
            lines = [line async for line in response.content if line.startswith(b"data:")]
        self._check(lines[-1].strip() == b"data: [DONE]", lines[-1])

    async def constrain(self) -> None:
        kind = self._random.choice([{"regex": REGEX}, {"json_schema": SCHEMA}])
        await self._post(self._prompt(), max_new_tokens=48, **kind)

    async def fork(self) -> None:
        answers = await self._post(self._prompt(200), max_new_tokens=8, n=4)
        self._check(len(answers) == 4, answers)

    async def choose(self) -> None:
        prompt = self._prompt()
        body = self._body([prompt + word for word in (" one", " two", " three")], max_new_tokens=0)
        async with self._session.post(
            "/generate", json=body | {"return_logprob": True, "logprob_start_len": 0}
        ) as response:
            answers = await response.json()
        self._check(all(a["meta_info"]["input_token_logprobs"] for a in answers), answers)

    async def abort(self) -> None:
        rid = f"soak-{self._random.getrandbits(60)}"
        asked = asyncio.create_task(self._post(self._prompt(), max_new_tokens=400, rid=rid, ignore_eos=True))
        await asyncio.sleep(self._random.random() * 0.3)
        async with self._session.post("/abort_request", json={"rid": rid}) as response:
            self._check(response.status == 200, response.status)
        await asked

    async def leave(self) -> None:
        body = self._body(self._prompt(), max_new_tokens=400, ignore_eos=True) | {"stream": True}
        async with self._session.post("/generate", json=body) as response:
            await response.content.readany()

    async def fail(self) -> None:
        async with self._session.post("/generate", json=self._body("a", regex="((")) as response:
            self._check(response.status == 400, response.status)

    async def _post(self, prompt: str, rid: str | None = None, **params: Any) -> Any:
        async with self._session.post("/generate", json=self._body(prompt, **params) | {"rid": rid}) as response:
            answer = await response.json()
            self._check(response.status == 200, answer)
            return answer

    def _body(self, text: str | list[str], **params: Any) -> dict[str, Any]:
        return {"text": text, "sampling_params": {"temperature": self._random.choice([0, 0.7, 1.0]), **params}}

    def _prompt(self, words: int = 0) -> str:
        shared = "You are a helpful assistant. " * self._random.randint(0, 8)
        return shared + " ".join(self._random.choices(WORDS, k=words or self._random.randint(1, 60)))

    def _check(self, holds: bool, found: Any) -> None:
        if not holds:
            raise ValueError(f"unexpected answer: {str(found)[:300]}")


async def soak(server: Server, minutes: float) -> tuple[list[str], Counter[str], list[float]]:
    failures: list[str] = []
    done: Counter[str] = Counter()
    memory: list[float] = []
    until = time.monotonic() + 60 * minutes
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(server.url, connector=connector) as session:
        clients = [asyncio.create_task(Client(i, session, failures, done).run(until)) for i in range(CLIENTS)]
        while time.monotonic() < until:
            memory.append(server.resident_mib())
            await asyncio.sleep(min(5.0, 6 * minutes))
        await asyncio.gather(*clients)
    return failures, done, memory


def main(minutes: float) -> int:
    # A small pool, so that eviction and retraction happen all the time.
    with serve("--max-total-tokens", "8192", "--context-length", "1024", "--log-level", "warning") as server:
        failures, done, memory = asyncio.run(soak(server, minutes))
        state = server.wait_until_idle()
        log = server.log.read_text()
    early, late = max(memory[: max(1, len(memory) // 5)]), max(memory[-max(1, len(memory) // 5) :])
    print(f"{sum(done.values())} actions in {minutes:g} min: {dict(done)}")
    print(
        f"resident memory: {memory[0]:.0f} MiB at the start, {early:.0f} after a fifth of the time, {late:.0f} at the end"
    )
    print(f"state at the end: {state}")
    if state["used_tokens"] or state["free_tokens"] + state["cached_tokens"] != state["total"]:
        failures.append("KV slots do not add up")
    if late - early > GROWTH_MIB:
        failures.append(f"memory grew by {late - early:.0f} MiB")
    failures += [f"traceback in the log: ...{log[-2000:]}"] if "Traceback" in log else []
    return verdict(failures)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0))
