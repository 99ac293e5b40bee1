"""One generation's answer, on its way from the backend's chunks into the document."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from sgl_jupyter.backends.base import Chunk
from sgl_jupyter.lang.document import Document
from sgl_jupyter.lang.events import GenerationStarted, Origin, PromptRead, Token, Tokens, Usage
from sgl_jupyter.lang.ir import SglGen, reasoning_name
from sgl_jupyter.lang.reasoning import Part, ReasoningSplitter, reasoning_format, split_reasoning


class Answer:
    """Begins when the request is sent. `take` each chunk, then `finish`; or `take_samples`, where there are several answers."""

    def __init__(self, document: Document, gen: SglGen) -> None:
        self._document = document
        self._gen = gen
        self._format = None if gen.reasoning is None else reasoning_format(gen.reasoning)
        self._splitter = ReasoningSplitter(self._format) if self._format else None
        self._tokens = {"input": 0, "output": 0}
        self._read = 0
        """Characters that have come."""
        self._started = time.monotonic()
        document.log.append(GenerationStarted(gen.name))
        document.begin(gen.name)
        document.meta_info[gen.name] = None
        if self._splitter:
            document.begin(reasoning_name(gen.name), "reasoning")
        document.parsers.pop(gen.name, None)
        if gen.parse:
            document.parsers[gen.name] = gen.parse

    def take(self, chunk: Chunk) -> None:
        name = self._gen.name
        if self._document.meta_info[name] is None and "prompt_tokens" in chunk.meta_info:
            counts = (chunk.meta_info.get(f"{kind}_tokens") or 0 for kind in ("prompt", "cached"))
            self._document.log.append(PromptRead(name, *counts))
        self._document.meta_info[name] = chunk.meta_info
        if self._splitter:
            self._write(self._splitter.feed(chunk.text))
        else:
            for origin, text in self._by_origin(chunk):
                self._append(text, origin)
        self._tell_tokens("input", chunk.meta_info)
        self._tell_tokens("output", chunk.meta_info)

    def finish(self) -> None:
        """The answer is complete, or as complete as it gets."""
        document, name = self._document, self._gen.name
        meta_info = document.meta_info[name]
        if self._splitter:
            self._write(self._splitter.rest())
            document.end(reasoning_name(name))
        self._tell_usage(meta_info)
        document.end(name, meta_info)

    def take_samples(self, samples: Sequence[Chunk]) -> None:
        """Several answers at once: the text goes on with the first, the variable holds them all."""
        document, name = self._document, self._gen.name
        texts = [sample.text for sample in samples]
        if self._format:
            reasonings, texts = map(list, zip(*(split_reasoning(self._format, text) for text in texts), strict=True))
            document.think(reasonings[0], name)
            document.set(reasoning_name(name), reasonings)
        document.append(texts[0], "generated", name)
        meta_infos = [sample.meta_info for sample in samples]
        completion_tokens = sum(meta_info.get("completion_tokens", 0) for meta_info in meta_infos)
        meta_info = {**meta_infos[0], "completion_tokens": completion_tokens, "samples": meta_infos}
        self._tell_usage(meta_info)
        document.set(name, texts, meta_info)

    def _write(self, parts: Iterable[Part]) -> None:
        for kind, text in parts:
            if kind == "answer":
                self._append(text, "generated")
            else:
                self._document.think(text, self._gen.name)

    def _append(self, text: str, origin: Origin) -> None:
        tokens = (self._document.meta_info[self._gen.name] or {}).get("completion_tokens")
        self._document.append(text, origin, self._gen.name, tokens)

    def _by_origin(self, chunk: Chunk) -> Iterator[tuple[Origin, str]]:
        """The chunk's text in pieces: what the model chose, and what its constraint forced, where the server tells."""
        at, end = self._read, self._read + len(chunk.text)
        for start, stop in chunk.meta_info.get("forced_spans") or ():
            start, stop = max(start, at), min(stop, end)
            if start < stop:
                yield "generated", chunk.text[at - self._read : start - self._read]
                yield "forced", chunk.text[start - self._read : stop - self._read]
                at = stop
        yield "generated", chunk.text[at - self._read :]
        self._read = end

    def _tell_tokens(self, side: Literal["input", "output"], meta_info: dict[str, Any]) -> None:
        """Those that have come since the last chunk: the server tells all of them each time."""
        known = meta_info.get(f"{side}_token_logprobs") or []
        new = known[self._tokens[side] :]
        if not new:
            return
        self._tokens[side] = len(known)
        if side == "output":
            tokens = (Token(token_id, text, logprob) for logprob, token_id, text in new)
            self._document.log.append(Tokens(self._gen.name, "generated", tuple(tokens)))
            return
        first = meta_info.get("prompt_tokens", 0) - len(new)  # the server tells the prompt's last tokens
        cached = meta_info.get("cached_tokens", 0)
        tokens = (Token(new[i][1], new[i][2], new[i][0], first + i < cached) for i in range(len(new)))
        self._document.log.append(Tokens(self._gen.name, "prompt", tuple(tokens)))

    def _tell_usage(self, meta_info: dict[str, Any] | None) -> None:
        if meta_info and "completion_tokens" in meta_info:
            counts = (meta_info.get(f"{kind}_tokens") or 0 for kind in ("prompt", "cached", "completion"))
            self._document.log.append(Usage(self._gen.name, *counts, seconds=time.monotonic() - self._started))
