"""Engines that run elsewhere: `connect` finds out what answers at a URL. Such an engine is used from here, and never ended."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self
from urllib.parse import urlsplit

from .health import Probe, http_client, wait_until_healthy
from .models import local_folder

if TYPE_CHECKING:
    from ..backends.base import BaseBackend

OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}
"""Which engine it is, by what it says in GET /v1/models to own its models; by the names that `OpenAI` has for them."""


class RemoteEngine:
    """An engine that somebody else started."""

    def __init__(self, url: str, endpoint: BaseBackend, name: str, api_key: str | None) -> None:
        self.url = url
        self.endpoint = endpoint
        """The backend that runs programs on this engine."""
        self.name = name
        self.model = endpoint.model_path
        self.api_key = api_key

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.model} at {self.url}>"

    @property
    def state(self) -> str:
        """`ready`, or `unreachable` where it does not answer or is not well. Asks the server."""
        with Probe(self.url, self.api_key) as probe, suppress(PermissionError, RuntimeError):
            return "ready" if probe() else "unreachable"
        return "unreachable"

    def wait(self, timeout: float | None = None) -> Self:
        """Return this handle once the engine can generate. Raises as `wait_for_server` does."""
        wait_until_healthy(self.url, api_key=self.api_key, timeout=timeout)
        return self

    def stop(self) -> None:
        """Abort all requests on the engine, those of others too. Raises BackendError if it has no route for that."""
        self.endpoint.abort_all()

    def logs(self, n: int = 50) -> NoReturn:
        """Always an error: the log is where the engine runs."""
        raise self._not_from_here("read its log")

    def terminate(self) -> NoReturn:
        """Always an error: the engine is not this process's to end."""
        raise self._not_from_here("end it")

    def kill(self) -> NoReturn:
        """Always an error: the engine is not this process's to end."""
        self.terminate()

    def _not_from_here(self, action: str) -> RuntimeError:
        return RuntimeError(f"engine {self.name!r} was not launched from this machine: {action} where {self.url} runs")


def connect(
    url: str,
    api_key: str | None = None,
    *,
    name: str | None = None,
    model: str | None = None,
    verify: str | None = None,
) -> RemoteEngine:
    """A handle on the server that runs at `url`: SGLang, kernel_engine, a router, or one that speaks OpenAI's protocol.

    Args:
        url: where it answers, such as "http://gpu-box:30000".
        api_key: what it asks for, if it does. Read it from the environment or a file rather than write it into a notebook.
        name: what to call it, if not as its model.
        model: for a server with OpenAI's routes that has several, the model to use; without it the first.
        verify: for https, a file of certificate authorities to trust instead of the system's.

    Raises:
        ValueError: `url` is no http(s) URL.
        BackendUnreachable: nothing answers there (a `ConnectionError`).
        BackendError: the key is wrong, or what answers is none of these.
    """
    url = url.rstrip("/").removesuffix("/v1")
    endpoint = backend_at(url, api_key, model, verify)
    return RemoteEngine(url, endpoint, name or Path(endpoint.model_path).name or urlsplit(url).netloc, api_key)


def backend_at(
    url: str, api_key: str | None = None, model: str | None = None, verify: str | None = None
) -> BaseBackend:
    """The backend for what answers at `url`: SGLang's own protocol before OpenAI's. Raises as `connect` does.

    If the server does not tell the model's chat template, it is read from the model's files, where they are on this machine.
    """
    from ..backends.model_info import model_template

    backend = _backend_at(url, api_key, model, verify)
    if backend.model_template is None and (folder := local_folder(backend.model_path)):
        backend.model_template = model_template({"model_path": folder})
    return backend


def _backend_at(url: str, api_key: str | None, model: str | None, verify: str | None) -> BaseBackend:
    from ..backends.base import BackendError
    from ..backends.runtime_endpoint import RuntimeEndpoint

    try:
        return RuntimeEndpoint(url, api_key=api_key, verify=verify)
    except BackendError as error:
        if error.status not in (404, 405):
            raise
    return _openai_backend(url, api_key, model)


def _openai_backend(url: str, api_key: str | None, model: str | None) -> BaseBackend:
    """For a server with OpenAI's routes only. An engine of one's own continues text; any other answers messages."""
    import httpx

    from ..backends.base import BackendError
    from ..backends.openai import OpenAI

    try:
        with http_client(url, api_key) as client:
            response = client.get(f"{url}/v1/models").raise_for_status()
        offered = {entry["id"]: entry.get("owned_by") for entry in response.json()["data"]}
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackendError(
            f"{url} is neither an SGLang nor an OpenAI-compatible server: GET /v1/models: {error!r}"
        ) from error
    chosen = model or next(iter(offered), "")
    if chosen not in offered:
        raise BackendError(f"{url} offers no model {chosen!r}, but {', '.join(offered) or 'none at all'}")
    server = OWNERS.get(offered[chosen] or "")
    return OpenAI(
        chosen,
        is_chat_model=server is None,
        server=server or "openai",
        base_url=f"{url}/v1",
        api_key=api_key or "none",
    )
