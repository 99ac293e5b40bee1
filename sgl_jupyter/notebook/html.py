"""Runs and strings as HTML that survives: escaped, themed by no one, allowed by every sanitizer.

Inline styles with literal colours only, no text colour, no ids, no scripts: the same bytes read well on a light and on a dark
page, in an untrusted notebook and in an export. Where styles are dropped, the tags carry the difference: `<mark>` was
generated, `<b>` was chosen, `<ins>` was forced by the constraint.
"""

from __future__ import annotations

import html


def highlight_html(text: str) -> str:
    """One string in the look of generated text: what `print_highlight` shows."""
    return (
        '<div class="sgl-run tex2jax_ignore mathjax_ignore" dir="auto" style="white-space:pre-wrap;overflow-wrap:anywhere;'
        f'border-left:3px solid #0072b2;background-color:#0072b21f;padding:6px 12px">{html.escape(text)}</div>'
    )
