"""Runs and strings as HTML that survives: escaped, readable on any page, allowed by every sanitizer.

Inline styles with literal colours, no text colour, no ids, no scripts: the same bytes read well on a light and on a dark page,
in an untrusted notebook and in an export. Where styles are dropped, the tags carry the difference: `<mark>` was generated,
`<b>` was chosen, `<ins>` was forced by the constraint.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import pairwise

from sgl_jupyter.notebook.pictures import Picture
from sgl_jupyter.notebook.run import Fork, Kind, Message, Run, Segment
from sgl_jupyter.notebook.shading import Piece, shaded
from sgl_jupyter.notebook.text import activity, generations, notes, shown_blocks, visible

# Okabe-Ito colours, told apart by colour-blind readers, with an underline of its own style for each.
_BLUE, _GREEN, _PURPLE, _VERMILION = "#0072b2", "#009e73", "#cc79a7", "#d55e00"
_SHADE = 0.55
"""How strongly an all but impossible token is shaded."""

# Browsers paint the text in <mark> black. JupyterLab's sanitizer lets no `inherit` through, but it does let this, which is
# the same: the colour around it, with nothing mixed in.
_INHERIT = "color:color-mix(in srgb,currentcolor,red 0%)"

_ROOT = "line-height:1.5;overflow-wrap:break-word"
_LABEL = "font-size:12px;font-weight:600;opacity:.7"
# JupyterLab lets a <pre> scroll, which cuts off what is drawn below its last line: hence the padding.
_BODY = "margin:0;padding:0 0 3px;border:0;background:transparent;font-family:inherit;white-space:pre-wrap;word-break:normal"
_VARIABLE = "font-size:11px;font-family:monospace;opacity:.7"
_CELL = "text-align:left;vertical-align:top;padding:2px 16px 2px 0;border-bottom:1px solid #88888880"
_REASONING = "border-left:1px solid #88888880;padding:0 12px;margin:0 0 4px;opacity:.8"
_PICTURE = "max-width:320px;max-height:240px;vertical-align:top"
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
    words = " · ".join(filter(None, (message.role, activity(message, run))))
    waits = run.progress is not None and run.progress.first is None  # counts of tokens come too often to be announced
    label = _label(words, is_status=waits and message is run.blocks[-1]) if words else ""
    body = "".join(_part(segments, before, run) for before, segments in pairwise([[], *generations(message)]))
    body = _TRAILING_NEWLINES.sub("", body)
    edge = f"border-left:3px solid {_EDGES.get(message.role or '', '#88888840')};padding:0 12px;margin:0 0 10px"
    return f'<div style="{edge}">{label}<pre dir="auto" style="{_BODY}">{body}</pre></div>'


def _part(segments: list[Segment], before: list[Segment], run: Run) -> str:
    """Text of the program, of a generation, or of its reasoning, which comes before it."""
    if segments[0].origin == "reasoning":
        return _reasoning(segments[0], is_open=run.progress is not None and segments[0] is run.latest)
    tokens = run.tokens.get(segments[0].generation or 0)
    if not tokens:
        return _generation(segments, [None] * len(segments))
    thoughts = [segment for segment in before if segment.generation == segments[0].generation]
    pieces = shaded([segment.text for segment in (*thoughts, *segments)], tokens)
    return _generation(segments, pieces[len(thoughts) :])


def _reasoning(segment: Segment, is_open: bool) -> str:
    """What was thought, folded away behind its name once the answer comes."""
    name = f'<summary style="{_VARIABLE}">{_escape(segment.variable or "")}</summary>'
    text = f'<div dir="auto">{_escape(segment.text.strip())}</div>'
    return f'<details{" open" if is_open else ""} style="{_REASONING}">{name}{text}</details>'


def _generation(segments: list[Segment], pieces: Sequence[list[Piece] | None]) -> str:
    """All text of one request to the model, after the name of its variable; or text of the program."""
    last = segments[-1]
    count = f"1 of {len(last.others) + 1}" if last.others else ""
    texts = map(_segment, segments, pieces)
    first = _name(" ".join(filter(None, (last.variable, count)))) + "".join(texts)
    others = (
        _name(f"{number} of {len(last.others) + 1}") + _segment(Segment(sample, "generated"))
        for number, sample in enumerate(last.others, start=2)
    )
    return "&#10;".join([first, *others]) + ("&#10;" if last.others else "")


def _name(words: str) -> str:
    return f'<small style="{_VARIABLE}">{_escape(words)} </small>' if words else ""


def _cell(text: str, origin: Kind) -> str:
    return f'<td dir="auto" style="{_CELL};white-space:pre-wrap">{_segment(Segment(text, origin)) if text else ""}</td>'


def _segment(segment: Segment, pieces: list[Piece] | None = None) -> str:
    if segment.picture:
        return _picture(segment.picture)
    if segment.origin not in _TAGS:
        return _escape(segment.text)
    tag, style = _TAGS[segment.origin]
    if pieces and segment.origin == "generated":
        style = f"{_INHERIT};background-color:#00000000;border-bottom:1px solid {_BLUE}"
        text = "".join(_shade(*piece) for piece in pieces)
    else:
        text = _escape(segment.text)
    return f'<{tag} dir="auto" style="{style}">{text}</{tag}>'


def _shade(text: str, probability: float | None) -> str:
    """A token: the less likely it was, the stronger its shade."""
    if probability is None:
        return _escape(text)
    alpha = round(255 * _SHADE * (1 - probability))
    return f'<span title="{probability:.1%}" style="background-color:{_VERMILION}{alpha:02x}">{_escape(text)}</span>'


def _picture(picture: Picture) -> str:
    words = html.escape(visible(picture.words))
    images = (
        f'<img src="{html.escape(url)}" alt="{words}" title="{words}" style="{_PICTURE}">' for url in picture.urls
    )
    return "".join(images) or f'<small style="{_VARIABLE}">[{words}]</small>'


def _fork(fork: Fork) -> str:
    count = len(fork.children)
    column = "flex:1 1 260px;min-width:0;border-top:1px solid #88888880;padding:4px 0 0"
    children = (
        f'<div style="{column}">{_label(f"fork {number} of {count}")}{_blocks(child)}</div>'
        for number, child in enumerate(fork.children, start=1)
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:0 16px;margin:0 0 10px">{"".join(children)}</div>'


def _note(text: str) -> str:
    edge = f"border-left:3px solid {_VERMILION};padding:0 12px"
    return f'<div style="{_LABEL};{edge}"><output>{_escape(text)}</output></div>'


def _label(words: str, is_status: bool = False) -> str:
    """A line above what it is about. Screen readers announce a status when it comes."""
    text = f"<output>{_escape(words)}</output>" if is_status else _escape(words)
    return f'<div style="{_LABEL}">{text}</div>'


def _escape(text: str) -> str:
    return _BLANK_LINES.sub("&#10;", html.escape(visible(text)))
