"""The engine as coroutines see it: outputs of many requests, carried from the engine's thread to whoever awaits them.

Invariant: a request whose reader goes away, for whatever reason, is aborted.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable

from .engine import Engine, EngineSettings
from .errors import RequestError
from .model import Model
from .request import Output, Request
from .vision.prompt import Prompt

Arrivals = asyncio.Queue[tuple[int, Output]]


class AsyncEngine:
    """Must be created and used on one event loop. `on_failure` is called there once if the engine's thread fails."""

    def __init__(self, model: Model, settings: EngineSettings, on_failure: Callable[[], None]):
        self._loop = asyncio.get_running_loop()
        self._routes: dict[str, tuple[int, Arrivals]] = {}
        self._on_failure = on_failure
        self.engine = Engine(model, settings, self._deliver)
        self.engine.start()

    def check(self, requests: list[Request]) -> None:
        """Raise `RequestError` if one of `requests` cannot be served."""
        if self.engine.failure:
            raise RequestError("the engine has failed and is about to exit; see its log.", 503)
        for request in requests:
            self.engine.check(request)
        self._check_rids(requests)

    def _check_rids(self, requests: list[Request]) -> None:
        rids: set[str] = set()
        for request in requests:
            if request.rid in self._routes or request.rid in rids:
                raise RequestError(f"rid {request.rid!r} is in use by another request.")
            rids.add(request.rid)

    async def run(self, requests: list[Request]) -> AsyncGenerator[tuple[int, Output], None]:
        """Outputs of checked `requests` as they come, each with its request's index; ends when all have finished.

        Raises `RequestError` if a rid was taken since the check.
        """
        self._check_rids(requests)
        arrivals: Arrivals = asyncio.Queue()
        self._routes |= {request.rid: (index, arrivals) for index, request in enumerate(requests)}
        try:
            for request in requests:
                self.engine.submit(request)
            unfinished = len(requests)
            while unfinished:
                index, output = await arrivals.get()
                unfinished -= output.finish_reason is not None
                yield index, output
        finally:
            for request in requests:
                if self._routes.pop(request.rid, None):
                    self.engine.abort(request.rid)

    async def is_healthy(self, timeout: float) -> bool:
        """Whether the engine makes a token, or at least a step, within `timeout` seconds."""
        if self.engine.failure:
            return False
        asked = time.monotonic()
        probe = asyncio.ensure_future(self._probe())
        try:
            while not probe.done() and time.monotonic() - asked < timeout:
                await asyncio.wait([probe], timeout=0.2)
                if self.engine.busy and self.engine.last_progress > asked + 0.2:
                    return True
            return probe.done() and probe.exception() is None and probe.result()
        finally:
            probe.cancel()

    async def _probe(self) -> bool:
        from .sampling_params import SamplingParams

        request = Request(
            rid=f"health-{time.monotonic_ns()}",
            prompt=Prompt([0]),
            params=SamplingParams(max_new_tokens=1, temperature=0.0, ignore_eos=True),
        )
        async with contextlib.aclosing(self.run([request])) as outputs:
            last = [output async for _, output in outputs][-1]
        return last.finish_reason is not None and last.finish_reason["type"] != "abort"

    def _deliver(self, outputs: list[Output]) -> None:
        self._loop.call_soon_threadsafe(self._route, outputs)

    def _route(self, outputs: list[Output]) -> None:
        for output in outputs:
            if route := self._routes.get(output.rid):
                index, arrivals = route
                arrivals.put_nowait((index, output))
                if output.finish_reason is not None:
                    del self._routes[output.rid]
        if self.engine.failure:
            self._on_failure()
