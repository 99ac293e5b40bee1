"""A run as one Jupyter output, with the same bytes for the same text: all that varies between runs is in the metadata."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sgl_jupyter.notebook.html import run_html
from sgl_jupyter.notebook.run import Run
from sgl_jupyter.notebook.text import plain_with_spans

RUN_MIME_TYPE = "application/vnd.sgl_jupyter.run+json"
RUN_FORMAT_VERSION = 1


def mimebundle(run: Run, max_chars: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The output's data and metadata, with at most `max_chars` characters of the run's text.

    The text is saved twice, not three times: the JSON holds no text, but where in `text/plain` each span of it stands.
    """
    run = run.clipped(max_chars)
    text, blocks = plain_with_spans(run)
    record = {"v": RUN_FORMAT_VERSION, "status": run.status, "blocks": blocks}
    data = {RUN_MIME_TYPE: record, "text/html": run_html(run), "text/plain": text}
    speed = round(run.usage.completion_tokens / run.seconds, 1) if run.seconds else 0.0
    measured = {"usage": asdict(run.usage), "seconds": round(run.seconds, 3), "tokens_per_second": speed}
    return data, {"sgl_jupyter": measured}
