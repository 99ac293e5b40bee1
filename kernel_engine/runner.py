"""Requests of the routes on the engine: checked, logged, and aborted when their client goes away."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from .async_engine import AsyncEngine
from .protocol import Answer
from .request import Output
from .server_args import ServerArgs
from .web import unless_disconnected

logger = logging.getLogger(__name__)
LOGGED_CHARACTERS = 2048
"""Of a text, at `--log-requests-level 1`; at 2 all of them."""


class Runner:
    """What `/generate` and OpenAI's routes have in common; neither knows the engine otherwise."""

    def __init__(self, engine: AsyncEngine, args: ServerArgs):
        self._engine, self._log, self._level = engine, args.log_requests, args.log_requests_level

    def check(self, answers: list[Answer]) -> None:
        """Raise `RequestError` if one of the blank `answers` stands for a request that cannot be served."""
        self._engine.check([answer.request for answer in answers])
        for request in (answer.request for answer in answers if self._log):
            logger.info(
                "Receive: rid=%s, prompt_tokens=%d, %s%s",
                request.rid, len(request.input_ids), request.params, self._logged_text(request.input_ids),
            )  # fmt: skip

    async def outputs(self, answers: list[Answer]) -> AsyncGenerator[tuple[int, Output], None]:
        """Outputs of checked requests as they come, each with its answer's index, and added to that answer before.

        Raises `RequestError` if a request fails.
        """
        requests = [answer.request for answer in answers]
        async with contextlib.aclosing(self._engine.run(requests)) as outputs:
            async for index, output in outputs:
                answers[index].add(output)
                if self._log and output.finish_reason:
                    answer = answers[index]
                    logger.info("Finish: %s%s", answer.json()["meta_info"], self._logged_text(answer.output_ids))
                if error := answers[index].error:
                    raise error
                yield index, output

    def _logged_text(self, ids: list[int]) -> str:
        """As much of the text of `ids` as is to be logged."""
        if not self._level:
            return ""
        text = str(self._engine.engine.model.tokenizer.decode(ids))
        return f", text={text[: LOGGED_CHARACTERS if self._level == 1 else None]!r}"

    async def finish(self, client: HttpRequest, answers: list[Answer]) -> None:
        """Complete `answers`. Raises `RequestError` if one fails, `ClientDisconnect` if the client does not wait."""
        if await unless_disconnected(client, self._finish(answers)) is None:
            raise ClientDisconnect

    async def _finish(self, answers: list[Answer]) -> bool:
        async with contextlib.aclosing(self.outputs(answers)) as outputs:
            async for _ in outputs:
                pass
        return True
