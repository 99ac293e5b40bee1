"""Waiting for a server to be ready: what the user sees meanwhile, and every way in which it can end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from .console import status_line
from .logs import last_words
from .process import SupervisedProcess


class WaitInterrupted(KeyboardInterrupt):
    """The user interrupted a wait. What was waited for goes on."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [str(self)]


def wait_until(
    is_ready: Callable[[], bool],
    *,
    what: str,
    process: SupervisedProcess | None,
    timeout: float | None,
    pause: Callable[[float], object],
    news: Callable[[], str],
) -> None:
    """Return once `is_ready()`. Until then show `news()`, and look again after each `pause(at most so many seconds)`.

    Raises EngineDiedError as soon as `process` is dead, TimeoutError after `timeout` seconds, WaitInterrupted when the user
    interrupts.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    line = status_line()
    try:
        while not is_ready():
            if process and not process.is_running():
                raise process.death()
            left = deadline - time.monotonic()
            if left <= 0:
                last = last_words(process.log_path) if process else news()
                raise TimeoutError(f"{what} was not ready after {timeout:g} s. The last that was heard of it:\n{last}")
            line.show(news())
            pause(left)
    except KeyboardInterrupt:
        line.finish(f"Waiting for {what} was interrupted.")
        advice = "It goes on loading: wait for it again, or end it with terminate()." if process else ""
        raise WaitInterrupted(f"Waiting for {what} was interrupted. {advice}".rstrip()) from None
    except BaseException:
        line.finish(f"{what} did not get ready.")
        raise
    line.finish(f"{what} is ready.")
