"""Runs as text: a conversation that reads well in a terminal, in a diff and wherever HTML is not shown.

What the model wrote stands between guillemets after the name of its variable, as in `answer=«Paris»`. While a run grows its
text only grows at the end, so a terminal can print it as it comes.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from sgl_jupyter.notebook.run import Fork, Message, Run, Segment

_VISIBLE = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),
}


def visible(text: str) -> str:
    """`text` with every control character replaced by a sign for it, so that no terminal or page obeys it."""
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def shown_generations(message: Message) -> list[list[Segment]]:
    """The message without the template's markup, one list for the program's text or for one generation."""
    shown = [segment for segment in message.segments if segment.origin != "template"]
    return [list(group) for _, group in groupby(shown, key=lambda segment: segment.generation)]


def is_shown(block: Message | Fork) -> bool:
    """Whether a view has anything to show for the block: a role, a fork, or text that is not markup."""
    return isinstance(block, Fork) or block.role is not None or bool(shown_generations(block))


def ending(run: Run) -> str | None:
    """What there is to say about how the run ended, in a few words; None if it is running or all went well."""
    if run.status == "stopped":
        return "stopped"
    if run.status == "error":
        return f"failed: {type(run.error).__name__}"
    return None


class PlainWriter:
    """Collects text; `length` counts its characters."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0

    def put(self, text: str, style: str = "") -> None:
        """Append `text`, which is a `label`, or of an origin, or a `mark` around generated text."""
        self.parts.append(text)
        self.length += len(text)

    def put_ending(self, text: str) -> None:
        self.put(f"[{text}]\n", "ending")


class AnsiWriter(PlainWriter):
    """The same text with terminal colours. Each style holds until the next, so growing text never takes back a code."""

    _CODES = {  # noqa: RUF012
        "label": "1",
        "mark": "2",
        "generated": "34",
        "chosen": "1;32",
        "forced": "35",
        "ending": "31",
    }

    def __init__(self) -> None:
        super().__init__()
        self._style = ""

    def put(self, text: str, style: str = "") -> None:
        code = self._CODES.get(style, "")
        if code != self._style:
            self.parts.append(f"\x1b[0m\x1b[{code}m" if code else "\x1b[0m")
            self._style = code
        super().put(text, style)


def plain(run: Run) -> str:
    """The run as readable text, with each role on a line of its own."""
    writer = PlainWriter()
    write(run, writer)
    return "".join(writer.parts).rstrip("\n") if run.status != "running" else "".join(writer.parts)


def ansi(run: Run) -> str:
    """The same for a terminal, in colours."""
    writer = AnsiWriter()
    write(run, writer)
    return "".join(writer.parts)


def write(run: Run, out: PlainWriter) -> list[dict[str, Any]]:
    """Write the run, and return where everything stands in what was written.

    A message is `{"role": ..., "spans": [[start, end, origin, variable], ...]}` with offsets in Unicode code points, a fork
    is `{"forks": [...]}` with the same list for every child.
    """
    blocks = []
    for block in filter(is_shown, run.blocks):
        if out.length:
            out.put("\n\n")
        blocks.append(_write_fork(block, out) if isinstance(block, Fork) else _write_message(block, run, out))
    if words := ending(run):
        out.put("\n\n" if out.length else "")
        out.put_ending(words)
    return blocks
