"""Runs as text: a conversation that reads well in a terminal, in a diff and wherever HTML is not shown.

What the model wrote stands between guillemets after the name of its variable, as in `answer=«Paris»`. While a run grows, its
text grows only at the end (but for text that arrives in several forks at once), so a terminal can print it as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from sgl_jupyter.notebook.run import Fork, Message, Run, Segment

_VISIBLE = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), 0xFFFD),
}
_ANSI_CODES = {
    "label": "1", "mark": "2", "generated": "34", "chosen": "1;32", "forced": "35", "reasoning": "2", "note": "31"
}  # fmt: skip


def counted(number: int, noun: str) -> str:
    """`1 token`, `2 tokens`, `1,000 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def visible(text: str) -> str:
    """`text` with a sign in place of every control character, so that no terminal, page or encoder stumbles over it."""
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def generations(message: Message) -> list[list[Segment]]:
    """The message without the template's markup: one list of segments for each generation, for the reasoning before it, and
    for the text in between."""
    shown = [segment for segment in message.segments if segment.origin != "template" or segment.picture]
    return [list(group) for _, group in groupby(shown, key=lambda each: (each.generation, each.origin == "reasoning"))]


def shown_blocks(run: Run) -> list[Message | Fork]:
    """The blocks that a view shows: all but messages that have no role and nothing but markup."""
    return [block for block in run.blocks if isinstance(block, Fork) or block.role is not None or generations(block)]


def notes(run: Run) -> list[str]:
    """What a reader must know about the run beside its text: how it ended, unless all went well, and what is left out."""
    left_out = [f"{run.left_out} more characters are not shown here"] if run.left_out else []
    match run.status:
        case "stopped":
            return [*left_out, "stopped"]
        case "error":
            return [*left_out, f"failed: {type(run.error).__name__}: {run.error}"]
        case _:
            return left_out


def activity(message: Message, run: Run) -> str:
    """What a reader waits for in this message now, if for anything."""
    progress = run.progress
    if progress is None or message is not run.blocks[-1]:
        return ""
    if progress.first is None:
        return run.waits_for or "waiting for the engine"
    thinks = run.latest is not None and run.latest.origin == "reasoning"
    speed = progress.tokens_per_second
    cached = f", {progress.cached_tokens:,} cached" if progress.cached_tokens else ""
    told = (
        "thinking" if thinks else "generating",
        counted(progress.tokens, "token") if progress.tokens else "",
        f"{speed:.3g} tokens/s" if speed else "",
        f"prompt of {counted(progress.prompt_tokens, 'token')}{cached}" if progress.prompt_tokens else "",
    )
    return " · ".join(filter(None, told))


class PlainWriter:
    """Collects text with its control characters made visible; `length` counts its characters."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0

    def put(self, text: str, style: str = "") -> None:
        """Append `text`. Its style is an origin, or `image`, `label`, `mark` (the signs around generated text), or `note`."""
        text = visible(text)
        self.parts.append(text)
        self.length += len(text)


class AnsiWriter(PlainWriter):
    """The same text with terminal colours. A style holds until the next one, so growing text takes back no code."""

    def __init__(self) -> None:
        super().__init__()
        self._code = ""

    def put(self, text: str, style: str = "") -> None:
        code = _ANSI_CODES.get(style, "")
        if code != self._code:
            self.parts.append("\x1b[0m" + (f"\x1b[{code}m" if code else ""))
            self._code = code
        super().put(text, style)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of plain text, one line a row."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows])
    return "\n".join(line.rstrip() for line in lines)


def plain(run: Run) -> str:
    """The run as readable text, with each role on a line of its own."""
    return plain_with_spans(run)[0]


def plain_with_spans(run: Run) -> tuple[str, list[dict[str, Any]]]:
    """The plain text, and where in it everything stands.

    A message is `{"role": ..., "spans": [[start, end, origin, variable], ...]}` with offsets in Unicode code points, a fork
    is `{"forks": [...]}` with such a list for each child.
    """
    out = PlainWriter()
    blocks = _write_run(run, out)
    return "".join(out.parts), blocks


def ansi(run: Run) -> str:
    """The same text for a terminal, in colours."""
    out = AnsiWriter()
    _write_run(run, out)
    return "".join(out.parts)


def _write_run(run: Run, out: PlainWriter) -> list[dict[str, Any]]:
    blocks = []
    for block in shown_blocks(run):
        _start_paragraph(out)
        if isinstance(block, Fork):
            blocks.append({"forks": _write_fork(block, out)})
        else:
            blocks.append({"role": block.role, "spans": _write_message(block, run.generating, out)})
    for note in notes(run):
        _start_paragraph(out)
        out.put(f"[{note}]", "note")
    return blocks


def _start_paragraph(out: PlainWriter) -> None:
    if out.length:
        out.put("\n\n")


def _write_fork(fork: Fork, out: PlainWriter) -> list[list[dict[str, Any]]]:
    children = []
    for number, child in enumerate(fork.children, start=1):
        out.put(f"[fork {number} of {len(fork.children)}]", "label")
        children.append(_write_run(child, out))
        _start_paragraph(out)
    out.put("[end of the fork]", "label")
    return children


def _write_message(message: Message, generating: int | None, out: PlainWriter) -> list[list[Any]]:
    if message.role is not None:
        out.put(f"{message.role}:\n", "label")
    spans: list[list[Any]] = []
    ends_line = False
    parts = generations(message)
    for segments in parts:
        if ends_line:
            out.put("\n")
        generation, variable, others = segments[0].generation, segments[0].variable, segments[-1].others
        ends_line = bool(others) or segments[0].origin == "reasoning"
        if generation is not None:
            out.put(f"{variable}=«" if variable else "«", "mark")
        for segment in segments:
            start = out.length
            text, kind = (f"[{segment.picture.words}]", "image") if segment.picture else (segment.text, segment.origin)
            out.put(text, kind)
            spans.append([start, out.length, kind, segment.variable])
        if generation is not None and (generation != generating or segments is not parts[-1]):
            out.put("»", "mark")
            spans += _write_samples(others, variable, out)
    return spans


def _write_samples(others: list[str], variable: str | None, out: PlainWriter) -> list[list[Any]]:
    """The second and further samples of one request, each on a line of its own."""
    spans = []
    for number, sample in enumerate(others, start=2):
        out.put(f"\n[{number} of {len(others) + 1}] «", "mark")
        start = out.length
        out.put(sample, "generated")
        spans.append([start, out.length, "sample", variable])
        out.put("»", "mark")
    return spans
