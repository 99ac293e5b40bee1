"""One server for all tests of its routes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .support import ServerProcess, running_server


@pytest.fixture(scope="package")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(
        folder, "--model-path", "tiny-chat", "--max-total-tokens", "20000", "--max-running-requests", "16"
    ) as server:
        yield server


@pytest.fixture
def server(shared_server: ServerProcess) -> Iterator[ServerProcess]:
    """The server, which must be idle and alive after each test, and log no traceback in it."""
    before = len(shared_server.log)
    yield shared_server
    shared_server.wait_until_idle()
    assert "Traceback" not in (new := shared_server.log[before:]), new[:4000]
