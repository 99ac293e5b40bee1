"""What runs before the server says that it is ready, so that the first user does not wait for what is set up late."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from .async_engine import AsyncEngine
from .engine import Engine
from .request import Request
from .sampling_params import SamplingParams
from .server_args import ServerArgs
from .vision.prompt import Prompt

PROMPT = "The capital city of France is"
SCHEMA = '{"type": "object", "properties": {"city": {"type": "string"}, "inhabitants": {"type": "integer"}}}'


async def warm_up(engine: AsyncEngine, args: ServerArgs) -> None:
    """Generate a few tokens, and do what `--warmups` names, in order."""
    for make in (_first, *(WARMUPS[name] for name in args.warmup_names())):
        async with contextlib.aclosing(engine.run(make(engine.engine))) as outputs:
            async for _ in outputs:
                pass


def _first(engine: Engine) -> list[Request]:
    return [_request(engine, "first", max_new_tokens=8)]


def _prefill(engine: Engine) -> list[Request]:
    """A prompt that fills a step."""
    policy = engine.settings.policy
    length = min(policy.chunk, policy.max_prefill, engine.context - 1)
    ids = [token % engine.model.shape.vocab for token in range(length)]
    return [Request(rid="warmup-prefill", prompt=Prompt(ids), params=SamplingParams(max_new_tokens=0))]


def _batch(engine: Engine) -> list[Request]:
    """As many requests as are computed together."""
    return [_request(engine, f"batch-{row}", max_new_tokens=2, ignore_eos=True) for row in range(engine.settings.rows)]


def _regex(engine: Engine) -> list[Request]:
    return [_request(engine, "regex", max_new_tokens=8, regex=r"[A-Z][a-z]+\.")]


def _json_schema(engine: Engine) -> list[Request]:
    return [_request(engine, "json-schema", max_new_tokens=8, json_schema=SCHEMA)]


WARMUPS: dict[str, Callable[[Engine], list[Request]]] = {
    "prefill": _prefill, "batch": _batch, "regex": _regex, "json_schema": _json_schema,
}  # fmt: skip


def _request(engine: Engine, name: str, **params: int | str) -> Request:
    ids: list[int] = engine.model.tokenizer(PROMPT)["input_ids"]  # pyright: ignore[reportAssignmentType]
    sampling = SamplingParams(temperature=0.0, **params)  # pyright: ignore[reportArgumentType]
    return Request(rid=f"warmup-{name}", prompt=Prompt(ids[: engine.context - 1]), params=sampling)
