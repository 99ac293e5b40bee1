"""Log-probabilities in OpenAI's two forms, with the bytes of every token.

A token may be a part of a character; its text then holds U+FFFD, and only its bytes are exact.
"""

from __future__ import annotations

import re
from typing import Any

from transformers import PreTrainedTokenizerFast

from ..request import LogprobEntry

LEAST = -9999.0
"""Stands for minus infinity, which JSON does not have."""
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def _alphabet() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (the table of GPT-2's tokenizer)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


class Vocabulary:
    """What each token spells, leading spaces included."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self._tokenizer = tokenizer.backend_tokenizer
        self._added = {token: added.content for token, added in tokenizer.added_tokens_decoder.items()}
        decoder = self._tokenizer.decoder
        self._alphabet = _alphabet() if decoder and b"ByteLevel" in decoder.__getstate__() else {}

    def spell(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        name = self._tokenizer.id_to_token(token) or ""
        if self._alphabet:
            return bytes(self._alphabet[char] for char in name if char in self._alphabet)
        if byte := BYTE_TOKEN.fullmatch(name):
            return bytes([int(byte[1], 16)])
        return name.replace("\u2581", " ").encode()

    def text(self, token: int) -> str:
        return self.spell(token).decode(errors="replace")

    def chat(self, entries: list[LogprobEntry]) -> dict[str, Any]:
        """`logprobs` of a chat choice."""
        content = [
            self._item(entry.logprob, entry.token)
            | {"top_logprobs": [self._item(logprob, token) for logprob, token in entry.top or []]}
            for entry in entries
        ]
        return {"content": content, "refusal": None}

    def completion(self, entries: list[LogprobEntry], offset: int, *, top: bool) -> dict[str, Any]:
        """`logprobs` of a completion choice whose text has `offset` characters before these tokens."""
        tokens = [self.text(entry.token) for entry in entries]
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [None if e.logprob is None else max(e.logprob, LEAST) for e in entries],
            "top_logprobs": [self._alternatives(entry) for entry in entries] if top else None,
            "text_offset": offsets,
        }

    def _item(self, logprob: float | None, token: int) -> dict[str, Any]:
        value = LEAST if logprob is None else max(logprob, LEAST)
        return {"token": self.text(token), "bytes": list(self.spell(token)), "logprob": value}

    def _alternatives(self, entry: LogprobEntry) -> dict[str, float] | None:
        """The best alternatives, and the token itself, by text; of two that read alike, the likelier."""
        if entry.logprob is None or entry.top is None:
            return None
        found: dict[str, float] = {}
        for logprob, token in [*entry.top, (entry.logprob, entry.token)]:
            found.setdefault(self.text(token), max(logprob, LEAST))
        return found
