"""A scripted server that speaks the wire forms of OpenAI, Anthropic and Vertex AI, as their vendors document them.

Whatever it is asked on a known route it answers with `texts`, streamed or whole, unless `respond` says otherwise; and it keeps
what it was asked. It cannot show that a vendor's own service takes the same requests.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .fake_server import running, sse

USAGE = {
    "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "prompt_tokens_details": {"cached_tokens": 5}
}  # fmt: skip


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class FakeVendor:
    """`finish` is why an answer ends, in the words of the vendor that is asked."""

    url: str = ""
    texts: Sequence[str] = ("Hello", ", wor", "ld!")
    finish: str = ""
    respond: Callable[[dict[str, Any]], Response] | None = None
    asked: list[Asked] = field(default_factory=list)
    left_early: threading.Event = field(default_factory=threading.Event)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [asked.body for asked in self.asked]

    def reset(self) -> None:
        """As it was when it started."""
        vars(self).update(vars(FakeVendor(self.url)))

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        path = request.url.path
        self.asked.append(Asked(path, dict(request.headers), body))
        if self.respond is not None:
            return self.respond(body)
        if path.endswith("/messages"):
            return self.anthropic()
        if path.endswith(":streamGenerateContent"):
            return self.google()
        return self.openai(body, is_chat=path.endswith("/chat/completions"))

    def openai(self, body: dict[str, Any], is_chat: bool) -> Response:
        kind = "chat.completion" if is_chat else "text_completion"
        if not body.get("stream"):
            text = "".join(self.texts)
            choices = [
                {"index": i, "finish_reason": self.finish or "stop", "logprobs": None}
                | ({"message": {"role": "assistant", "content": text}} if is_chat else {"text": text})
                for i in range(body.get("n", 1))
            ]
            return JSONResponse(openai_frame(kind, choices) | {"usage": USAGE})
        chunks = [openai_chunk(is_chat, text) for text in self.texts]
        last = openai_chunk(is_chat, "", finish=self.finish or "stop")
        return sse(*chunks, last, openai_frame(kind + ".chunk", []) | {"usage": USAGE})

    def anthropic(self) -> Response:
        usage = {"input_tokens": 4, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 0, "output_tokens": 1}
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": usage,
        }  # fmt: skip
        finish = self.finish or "end_turn"
        stopped = {"stop_reason": finish, "stop_sequence": "\n" if finish == "stop_sequence" else None}
        events = [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
                for text in self.texts
            ),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": stopped, "usage": {"output_tokens": 4}},
            {"type": "message_stop"},
        ]
        named = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)
        return sse(*named, done=False)

    def google(self) -> Response:
        events = [google_event(text) for text in self.texts[:-1]]
        last = google_event(self.texts[-1], self.finish or "STOP")
        counts = {
            "promptTokenCount": 9,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 1,
            "cachedContentTokenCount": 5,
        }
        return sse(*events, last | {"usageMetadata": counts}, done=False)

    def endless(self, event: bytes) -> Response:
        """Begins an answer with `event` and never ends it; notes when the client goes away."""

        async def stream() -> AsyncIterator[bytes]:
            try:
                yield event
                await asyncio.sleep(3600)
            finally:
                self.left_early.set()

        return StreamingResponse(stream(), media_type="text/event-stream")


def openai_frame(kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "answer-1", "object": kind, "created": 1, "model": "m", "choices": choices}


def openai_chunk(is_chat: bool, text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    content = {"delta": {"content": text}} if is_chat else {"text": text}
    choice = {"index": 0, "finish_reason": finish, "logprobs": None} | content | more
    return openai_frame("chat.completion.chunk" if is_chat else "text_completion", [choice])


def google_event(text: str, finish: str | None = None) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}} | ({"finishReason": finish} if finish else {})
    return {"candidates": [candidate], "responseId": "response-1"}


def event(data: dict[str, Any], name: str = "") -> bytes:
    """One server-sent event."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n"


@contextmanager
def vendor() -> Iterator[FakeVendor]:
    """A running server, on a free port of this machine."""
    fake = FakeVendor()
    with running([Route("/{path:path}", fake.answer, methods=["POST"])]) as fake.url:
        yield fake
