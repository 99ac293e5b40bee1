"""The process's log, in SGLang's form, on standard error."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

from .server_args import ServerArgs

logger = logging.getLogger(__name__)
LOOKS = {"/health", "/get_server_info", "/server_info", "/metrics"}


def set_up_logging(args: ServerArgs) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_SGLangFormat())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("kernel_engine").setLevel(args.log_level.upper())
    logging.getLogger("uvicorn").setLevel(args.http_level.upper())
    logging.getLogger("uvicorn.access").addFilter(_is_no_look)


def _is_no_look(record: logging.LogRecord) -> bool:
    """Whether an access is worth a line: front ends look at health and state every second."""
    path = record.args[2] if isinstance(record.args, tuple) and len(record.args) > 2 else ""
    return path not in LOOKS


@contextlib.contextmanager
def timed(what: str, shown: bool) -> Iterator[None]:
    """Log how long `what` took, if that is to be `shown`."""
    began = time.monotonic()
    yield
    if shown:
        logger.info("Time cost of %s: %.2f s", what, time.monotonic() - began)


class _SGLangFormat(logging.Formatter):
    """`[time] message`, with uvicorn's lines marked by their level, as SGLang's log has them."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        stamp = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        plain = record.levelno == logging.INFO and not record.name.startswith("uvicorn")
        return f"[{stamp}] {line}" if plain else f"[{stamp}] {record.levelname + ':':<9}{line}"
