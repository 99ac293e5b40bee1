"""Runs and strings as HTML that survives: escaped, readable on any page, allowed by every sanitizer.

Inline styles with literal colours, no text colour, no ids, no scripts: the same bytes read well on a light and on a dark page,
in an untrusted notebook and in an export. Where styles are dropped, the tags carry the difference: `<mark>` was generated,
`<b>` was chosen, `<ins>` was forced by the constraint.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from sgl_jupyter.lang.events import Origin
from sgl_jupyter.notebook.run import Fork, Message, Run, Segment
from sgl_jupyter.notebook.text import generations, notes, shown_blocks, visible

# Okabe-Ito colours, told apart by colour-blind readers, with an underline of its own style for each.
_BLUE, _GREEN, _PURPLE, _VERMILION = "#0072b2", "#009e73", "#cc79a7", "#d55e00"

# Browsers paint the text in <mark> black. JupyterLab's sanitizer lets no `inherit` through, but it does let this, which is
# the same: the colour around it, with nothing mixed in.
_INHERIT = "color:color-mix(in srgb,currentcolor,red 0%)"

_ROOT = "line-height:1.5;overflow-wrap:break-word"
_LABEL = "font-size:12px;font-weight:600;opacity:.7"
_BODY = "margin:0;padding:0;border:0;background:transparent;font-family:inherit;white-space:pre-wrap;word-break:normal"
_VARIABLE = "font-size:11px;font-family:monospace;opacity:.7"
_CELL = "text-align:left;vertical-align:top;padding:2px 16px 2px 0;border-bottom:1px solid #88888880"
_EDGES = {"user": "#88888880", "assistant": _BLUE}

# In Markdown, and so in exports to it, a blank line would end the HTML: its newline is written as a reference.
_BLANK_LINES = re.compile(r"\n(?=[ \t]*\n)")
_TRAILING_NEWLINES = re.compile(r"(?:\n|&#10;)+$")

_TAGS = {
    "generated": ("mark", f"{_INHERIT};background-color:{_BLUE}2e;border-bottom:1px solid {_BLUE}"),
    "chosen": ("b", f"background-color:{_GREEN}2e;border-bottom:3px double {_GREEN}"),
    "forced": ("ins", f"text-decoration:none;background-color:{_PURPLE}2e;border-bottom:1px dotted {_PURPLE}"),
}


def run_html(run: Run) -> str:
    """The run as one element: a block for each message, forks side by side."""
    return f'<div class="sgl-run tex2jax_ignore mathjax_ignore" style="{_ROOT}">{_blocks(run)}</div>'


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[bool], notes: Sequence[str]) -> str:
    """A table of strings; the values in a `marked` column have the look of generated text."""
    names = "".join(f'<th style="{_CELL}">{_escape(name)}</th>' for name in head)
    lines = ("".join(map(_cell, row, ("generated" if is_marked else "prompt" for is_marked in marked))) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="sgl-run tex2jax_ignore mathjax_ignore" style="{_ROOT}">'
        f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>{''.join(map(_note, notes))}</div>"
    )


def highlight_html(text: str) -> str:
    """One string in the look of generated text: what `print_highlight` shows."""
    body = f'<pre dir="auto" style="{_BODY}">{_escape(text)}</pre>'
    edge = f"border-left:3px solid {_BLUE};background-color:{_BLUE}2e;padding:4px 12px"
    return f'<div class="sgl-run tex2jax_ignore mathjax_ignore" style="{_ROOT};{edge}">{body}</div>'


def _blocks(run: Run) -> str:
    shown = shown_blocks(run)
    blocks = [_fork(block) if isinstance(block, Fork) else _message(block, run) for block in shown]
    return "".join(blocks + [_note(note) for note in notes(run)])


def _message(message: Message, run: Run) -> str:
    words = " · ".join(filter(None, (message.role, _activity(message, run))))
    label = f'<div style="{_LABEL}">{_escape(words)}</div>' if words else ""
    body = _TRAILING_NEWLINES.sub("", "".join(_generation(segments) for segments in generations(message)))
    edge = f"border-left:3px solid {_EDGES.get(message.role or '', '#88888840')};padding:0 12px;margin:0 0 10px"
    return f'<div style="{edge}">{label}<pre dir="auto" style="{_BODY}">{body}</pre></div>'


def _activity(message: Message, run: Run) -> str:
    """What a reader waits for in this message now, if for anything."""
    if run.generating is None or message is not run.blocks[-1]:
        return ""
    has_text = bool(message.segments) and message.segments[-1].generation == run.generating
    return "generating" if has_text else "waiting for the engine"


def _generation(segments: list[Segment]) -> str:
    """All text of one request to the model, after the name of its variable; or text of the program."""
    last = segments[-1]
    count = f"1 of {len(last.others) + 1}" if last.others else ""
    first = _name(" ".join(filter(None, (last.variable, count)))) + "".join(map(_segment, segments))
    others = (
        _name(f"{number} of {len(last.others) + 1}") + _segment(Segment(sample, "generated"))
        for number, sample in enumerate(last.others, start=2)
    )
    return "&#10;".join([first, *others]) + ("&#10;" if last.others else "")


def _name(words: str) -> str:
    return f'<small style="{_VARIABLE}">{_escape(words)} </small>' if words else ""


def _cell(text: str, origin: Origin) -> str:
    return f'<td dir="auto" style="{_CELL};white-space:pre-wrap">{_segment(Segment(text, origin)) if text else ""}</td>'


def _segment(segment: Segment) -> str:
    if segment.origin not in _TAGS:
        return _escape(segment.text)
    tag, style = _TAGS[segment.origin]
    return f'<{tag} dir="auto" style="{style}">{_escape(segment.text)}</{tag}>'


def _fork(fork: Fork) -> str:
    count = len(fork.children)
    column = "flex:1 1 260px;min-width:0;border-top:1px solid #88888880;padding:4px 0 0"
    children = (
        f'<div style="{column}"><div style="{_LABEL}">fork {number} of {count}</div>{_blocks(child)}</div>'
        for number, child in enumerate(fork.children, start=1)
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:0 16px;margin:0 0 10px">{"".join(children)}</div>'


def _note(text: str) -> str:
    return f'<div style="{_LABEL};border-left:3px solid {_VERMILION};padding:0 12px">{_escape(text)}</div>'


def _escape(text: str) -> str:
    return _BLANK_LINES.sub("&#10;", html.escape(visible(text)))
