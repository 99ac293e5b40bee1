"""Whether a server can generate, asked of the server itself; and waiting until it can."""

from __future__ import annotations

import itertools
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from .logs import last_line
from .process import EngineDiedError, SupervisedProcess
from .waiting import wait_until

if TYPE_CHECKING:
    import httpx

LOOPBACK = {"localhost", "127.0.0.1", "::1"}
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
PROBE_TIMEOUT = 5.0


def wait_until_healthy(
    base_url: str,
    *,
    process: SupervisedProcess | subprocess.Popen[Any] | None = None,
    api_key: str | None = None,
    timeout: float | None = None,
) -> None:
    """Return once the server at `base_url` can generate; meanwhile show the last line of its log.

    Raises:
        EngineDiedError: `process` is dead.
        TimeoutError: it took more than `timeout` seconds.
        PermissionError: the server asks for another key.
        RuntimeError: it answers with another error that waiting will not mend.
        WaitInterrupted: the user interrupted.
    """
    supervised = process if isinstance(process, SupervisedProcess) else None
    with Probe(base_url, api_key, PROBE_TIMEOUT if timeout is None else timeout) as probe:

        def is_ready() -> bool:
            if isinstance(process, subprocess.Popen) and process.poll() is not None:
                raise EngineDiedError(f"the server process {process.pid} exited with code {process.returncode}")
            # Another server may hold the port of one that died for want of it.
            return probe() and (supervised is None or supervised.is_running())

        pauses = (min(FIRST_PAUSE * 1.5**n, LONGEST_PAUSE) for n in itertools.count())
        wait_until(
            is_ready,
            what=repr(supervised.name) if supervised else base_url,
            process=supervised,
            timeout=timeout,
            pause=lambda left: _pause(supervised, min(left, next(pauses))),
            news=lambda: (last_line(supervised.log_path) if supervised else "") or probe.answer,
        )
    if supervised:
        supervised.mark_ready(base_url)


class Probe:
    """Asks a server whether it can generate, on the route that it turns out to have: SGLang's, or OpenAI's."""

    def __init__(self, base_url: str, api_key: str | None, timeout: float = PROBE_TIMEOUT) -> None:
        self._base_url = base_url
        self._routes = ["/health_generate", "/v1/models"]
        self._client = http_client(base_url, api_key, max(0.1, min(timeout, PROBE_TIMEOUT)))
        self.answer = ""
        """The last answer, in words."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def __call__(self) -> bool:
        import httpx

        url = self._base_url + self._routes[0]
        try:
            response = self._client.get(url)
        except httpx.TransportError as error:
            self.answer = f"{url}: {error or type(error).__name__}"
            return False
        status = response.status_code
        self.answer = f"{url} answers {status}: {response.text[:200]}"
        if status in (404, 405) and len(self._routes) > 1:
            del self._routes[0]
            return self()
        if status in (401, 403):
            raise PermissionError(f"{url} answers {status}: give the server's key as api_key=...")
        if 400 <= status < 500 and status not in (408, 425, 429):
            raise RuntimeError(self.answer)
        return response.is_success


def http_client(base_url: str, api_key: str | None, timeout: float = PROBE_TIMEOUT) -> httpx.Client:
    """For short questions to the server at `base_url`."""
    import httpx

    return httpx.Client(
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        timeout=timeout,
        verify=base_url.startswith("https:"),  # to read the certificate authorities takes longer than a short question
        trust_env=urlsplit(base_url).hostname not in LOOPBACK,  # a proxy cannot reach this machine's loopback
    )


def _pause(process: SupervisedProcess | None, seconds: float) -> None:
    if process:
        process.watch(seconds)
    else:
        time.sleep(seconds)
