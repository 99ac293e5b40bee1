"""What the server's log has a line for."""

from __future__ import annotations

import logging

import pytest

from kernel_engine.server_args import ServerArgs
from kernel_engine.server_log import set_up_logging


@pytest.mark.parametrize(
    ("path", "lines"), [("/generate", 1), ("/v1/models", 1), ("/health", 0), ("/get_server_info", 0)]
)
def test_requests_are_logged_but_for_looks_at_the_state(
    path: str, lines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    access, root = logging.getLogger("uvicorn.access"), logging.getLogger()
    handlers, filters = list(root.handlers), list(access.filters)
    try:
        set_up_logging(ServerArgs(model_path="tiny-chat"))
        access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:50000", "GET", path, "1.1", 200)
    finally:
        root.handlers[:], access.filters[:] = handlers, filters
    assert capsys.readouterr().err.count(f'"GET {path} HTTP/1.1" 200') == lines
