"""Programs recorded to a file, and run again without an engine: `Recorder` around a backend, `Replay` in its place.

A recording is lines of JSON, only ever appended to: one for each session, which describes the backend, and one for each request,
written when its answer is complete. Equal requests are answered again in the order in which they were made.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sgl_jupyter.backends.base import (
    BackendError,
    BaseBackend,
    ChoiceScore,
    Chunk,
    ModelTemplate,
    Prompt,
    SamplingParams,
)
from sgl_jupyter.backends.takes import Take, difference, request_of, without_secrets
from sgl_jupyter.lang.config import default_backend, resolve_backend
from sgl_jupyter.lang.markup import ChatTemplate

FORMAT = 1
STOPPED = "the request was stopped at this point while it was recorded"
DESCRIBED = [name for name, value in vars(BaseBackend).items() if not (name.startswith("_") or callable(value))]
"""What a backend tells about itself, and a replay has to tell too."""
DESCRIPTIONS = {"model_template": ModelTemplate, "chat_template": ChatTemplate}
"""What of this is an object."""


class NotRecorded(BackendError):
    """A replay was asked for what its recording does not hold. The message tells the nearest request that it does hold."""


class Recorder(BaseBackend):
    """Runs programs on `backend`, and appends each request with its answer to the file at `path`.

    Args:
        backend: a backend, or anything with an `endpoint`, such as a launched engine.
        path: where to; made if it is not there. Prompts and answers are written as they are, API keys are not.

    Raises:
        ValueError: there is a file at `path` that is no recording, or one of another model.
    """

    def __init__(self, backend: Any, path: str | os.PathLike[str]) -> None:
        self._backend = resolve_backend(backend)
        self._path = Path(path)
        self._requests = 0
        for name in DESCRIBED:
            setattr(self, name, getattr(self._backend, name))
        if self._path.exists() and self._path.stat().st_size:
            self._check_model()
            _cut_off_unfinished_line(self._path)
        described = {name: getattr(self, name) for name in DESCRIBED}
        described |= {name: asdict(v) for name, v in described.items() if isinstance(v, tuple(DESCRIPTIONS.values()))}
        self._write({"recording": FORMAT, "backend": described})

    def __repr__(self) -> str:
        return f"Recorder({self._backend!r}, {str(self._path)!r})"

    async def generate(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        with self._taking("generate", prompt, params=params) as take:
            async with aclosing(self._backend.generate(prompt, params)) as chunks:
                async for chunk in chunks:
                    take.add(chunk)
                    yield chunk

    async def sample(self, prompt: Prompt, params: SamplingParams) -> list[Chunk]:
        with self._taking("sample", prompt, params=params) as take:
            samples = await self._backend.sample(prompt, params)
            for chunk in samples:
                take.add(chunk)
            return samples

    async def score(self, prompt: Prompt, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        with self._taking("score", prompt, choices=list(choices), alone=alone) as take:
            take.result = await self._backend.score(prompt, choices, alone)
            return take.result

    async def choose(self, prompt: Prompt, choices: Sequence[str]) -> tuple[str, dict[str, Any]]:
        with self._taking("choose", prompt, choices=list(choices)) as take:
            take.result = await self._backend.choose(prompt, choices)
            return take.result

    async def cache_prefix(self, prompt: Prompt) -> None:
        with self._taking("cache_prefix", prompt):
            await self._backend.cache_prefix(prompt)

    def flush_cache(self) -> None:
        self._backend.flush_cache()

    def abort_all(self) -> None:
        self._backend.abort_all()

    def get_server_info(self) -> dict[str, Any] | None:
        with self._taking("get_server_info") as take:
            info = self._backend.get_server_info()
            take.result = without_secrets(info)
            return info

    @contextmanager
    def _taking(self, method: str, prompt: Prompt | None = None, **arguments: Any) -> Iterator[Take]:
        """A take of one request, which is written as it is when the block is left, however that is."""
        take = Take(self._requests, request_of(method, prompt, **arguments))
        self._requests += 1
        try:
            yield take
        except Exception as error:
            take.error = error
            raise
        except BaseException:
            take.stopped = True
            raise
        finally:
            take.end = take.seconds()
            self._write(take.to_json())

    def _check_model(self) -> None:
        recorded = next(_read(self._path))["backend"]["model_path"]
        if recorded != self.model_path:
            raise ValueError(f"{self._path} is a recording of {recorded!r}: record {self.model_path!r} to another file")

    def _write(self, line: dict[str, Any]) -> None:
        """Append one line at once, so that several writers do not mix theirs."""
        text = json.dumps(line, ensure_ascii=False) + "\n"
        with open(self._path, "ab", buffering=0) as file:
            file.write(text.encode("utf-8", "surrogatepass"))


@contextmanager
def record(path: str | os.PathLike[str], backend: Any = None) -> Iterator[Recorder]:
    """Within the block, programs that name no backend run on `backend`, or the default one, and are recorded at `path`."""
    recorder = Recorder(backend, path)
    with default_backend(recorder):
        yield recorder


class Replay(BaseBackend):
    """Answers as the recording at `path` does: the same texts in the same pieces, with the same figures.

    A request is known by its content. One that is made several times is answered as it was the first time, the second, and so
    on; once too often, or never recorded, it is an error. To begin anew, make another `Replay`.

    Args:
        path: a file that `Recorder` wrote.
        speed: 1.0 takes the time that was recorded, 2.0 half of it; 0 takes none.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: what is there is no recording.
    """

    def __init__(self, path: str | os.PathLike[str], speed: float = 0.0) -> None:
        if speed < 0:
            raise ValueError(f"speed must be 0 or more, not {speed}")
        self._path, self._speed = Path(path), speed
        self._takes: dict[str, list[Take]] = defaultdict(list)
        """By request, in the order in which the requests were made."""
        self._asked: Counter[str] = Counter()
        session: list[Take] = []
        for line in _read(self._path):
            if "recording" in line:
                self._sort_in(session)
                session = []
                self._describe(line["backend"])
            else:
                session.append(Take.from_json(line))
        self._sort_in(session)

    def __repr__(self) -> str:
        return f"Replay({str(self._path)!r}, model={self.model_path!r})"

    async def generate(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        take = self._next(request_of("generate", prompt, params=params))
        begun = time.monotonic()
        for seconds, chunk in take.chunks:
            await self._wait_until(begun, seconds)
            yield chunk
        await self._finish(take, begun)

    async def sample(self, prompt: Prompt, params: SamplingParams) -> list[Chunk]:
        take = await self._whole(request_of("sample", prompt, params=params))
        return [chunk for _, chunk in take.chunks]

    async def score(self, prompt: Prompt, choices: Sequence[str], alone: bool = False) -> list[ChoiceScore]:
        return (await self._whole(request_of("score", prompt, choices=list(choices), alone=alone))).result

    async def choose(self, prompt: Prompt, choices: Sequence[str]) -> tuple[str, dict[str, Any]]:
        return (await self._whole(request_of("choose", prompt, choices=list(choices)))).result

    def abort_all(self) -> None:
        """Nothing runs at a server."""

    def get_server_info(self) -> dict[str, Any] | None:
        takes = self._takes.get(_key(request_of("get_server_info")))
        return takes[-1].result if takes else None

    def _describe(self, described: dict[str, Any]) -> None:
        for name in described.keys() & DESCRIBED:
            value = described[name]
            setattr(self, name, DESCRIPTIONS[name](**value) if isinstance(value, dict) else value)

    def _sort_in(self, session: list[Take]) -> None:
        for take in sorted(session, key=lambda take: take.number):
            self._takes[_key(take.request)].append(take)

    def _next(self, request: dict[str, Any]) -> Take:
        key = _key(request)
        takes, place = self._takes.get(key, []), self._asked[key]
        self._asked[key] += 1
        if place < len(takes):
            return takes[place]
        if takes:
            raise NotRecorded(f"{self._path} has {len(takes)} of this request, and it is made once more")
        recorded = [takes[0].request for takes in self._takes.values()]
        raise NotRecorded(f"{self._path} has no such request. {difference(request, recorded)}")

    async def _whole(self, request: dict[str, Any]) -> Take:
        begun = time.monotonic()
        take = self._next(request)
        await self._finish(take, begun)
        return take

    async def _finish(self, take: Take, begun: float) -> None:
        await self._wait_until(begun, take.end)
        if take.error is not None:
            raise take.error
        if take.stopped:
            raise BackendError(STOPPED)

    async def _wait_until(self, begun: float, seconds: float) -> None:
        """As long as was recorded, at the wanted speed; at least give way to others, as a wait for a server does."""
        left = begun + seconds / self._speed - time.monotonic() if self._speed else 0.0
        await asyncio.sleep(max(left, 0.0))


def _key(request: dict[str, Any]) -> str:
    return json.dumps(request, sort_keys=True)


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a recording; what a crash left of a last one is passed over."""
    *lines, _ = path.read_bytes().split(b"\n")
    if not lines:
        raise ValueError(f"{path} is empty: nothing was recorded there")
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text.decode("utf-8", "surrogatepass"))
            if number == 1 and line["recording"] != FORMAT:
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path} is no recording of format {FORMAT}: line {number} is {text[:60]!r}") from None
        yield line


def _cut_off_unfinished_line(path: Path) -> None:
    """What follows must begin on a line of its own, whatever a crash has left."""
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)
