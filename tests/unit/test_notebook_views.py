"""Runs as text, HTML and one Jupyter output: the promises of the output contract."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbconvert.exporters import HTMLExporter, MarkdownExporter, TemplateExporter

from sgl_jupyter.lang.events import EventLog, Failed, Finished, Stopped, Text
from sgl_jupyter.notebook.html import highlight_html, run_html
from sgl_jupyter.notebook.run import Run
from sgl_jupyter.notebook.text import ansi, plain, plain_with_spans
from sgl_jupyter.notebook.views import RUN_MIME_TYPE, mimebundle

from .notebook_logs import add_message, chat, constrained, cut_off, forks, open_message, samples, start_generation

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> &amp; </mark></pre> $x^2$ \\(y\\) "
    "\x1b[31mred\x1b[0m \x9b2J \x00 \ud800 \u202eevil مرحبا"
)

# What JupyterLab's sanitizer leaves of HTML in an untrusted notebook, as far as it concerns us.
ALLOWED_TAGS = {
    "div", "pre", "mark", "b", "ins", "small", "table", "thead", "tbody", "tr", "th", "td",
    "details", "summary", "span", "img", "output",
}  # fmt: skip
ALLOWED_ATTRIBUTES = {"class", "dir", "style", "title", "src", "alt", "open"}
ALLOWED_STYLES = {
    "line-height": r"[\d.]+",
    "overflow-wrap": "normal|break-word",
    "word-break": "normal|keep-all|break-all",
    "white-space": "pre-wrap",
    "font-size": r"\d+px",
    "font-weight": "600",
    "font-family": "inherit|monospace",
    "opacity": r"0?\.\d+",
    "color": r".*red.*",
    "background": "transparent",
    "background-color": "#[0-9a-f]{8}",
    "border": "0",
    "border-left": r"\d+px solid #[0-9a-f]{6,8}",
    "border-top": r"\d+px solid #[0-9a-f]{6,8}",
    "border-bottom": r"\d+px (solid|double|dotted) #[0-9a-f]{6,8}",
    "text-decoration": "none",
    "margin": r"(\d+(px)?\s*){1,4}",
    "padding": r"(\d+(px)?\s*){1,4}",
    "display": "flex",
    "flex": r"\d \d \d+px",
    "flex-wrap": "wrap",
    "gap": r"\d+ \d+px",
    "min-width": "0",
    "max-width": r"\d+px",
    "max-height": r"\d+px",
    "text-align": "left",
    "vertical-align": "top",
}


class Page(HTMLParser):
    """Reads HTML and fails on anything that a sanitizer would drop."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED_TAGS
        if tag != "img":
            self.open.append(tag)
        for name, value in attrs:
            assert name in ALLOWED_ATTRIBUTES
            if name == "style":
                for declaration in (value or "").split(";"):
                    key, _, setting = declaration.partition(":")
                    assert re.fullmatch(ALLOWED_STYLES[key], setting), declaration

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1], []).append(data)


def hostile() -> EventLog:
    log = EventLog()
    add_message(log, HOSTILE, HOSTILE, (HOSTILE, [("generated", HOSTILE), ("chosen", HOSTILE), ("forced", HOSTILE)]))
    log.append(Failed(ValueError(HOSTILE)))
    return log


ALL_LOGS = {
    "chat": chat(),
    "constrained": constrained(),
    "forks": forks(),
    "stopped": cut_off(Stopped()),
    "failed": cut_off(Failed(ValueError("no"))),
    "hostile": hostile(),
    "samples": samples("red", HOSTILE),
}


@pytest.mark.parametrize("name", ALL_LOGS)
def test_html_is_what_every_sanitizer_allows(name: str) -> None:
    Page(run_html(Run.from_log(ALL_LOGS[name])))


def test_tags_tell_generated_chosen_and_forced_text_from_the_prompt() -> None:
    page = Page(run_html(Run.from_log(chat())))
    assert page.texts["mark"] == ["2 * 2"]
    assert page.texts["b"] == ["calculator"]
    assert page.texts["pre"] == ["What is 2 * 2?", "I need a ", ".\n"]
    assert Page(run_html(Run.from_log(constrained()))).texts["ins"] == ['{"name": "', '"}']


def test_markup_of_the_template_is_hidden() -> None:
    for view in (run_html, plain, ansi):
        assert "im_start" not in view(Run.from_log(chat()))


def test_hostile_text_is_shown_and_not_obeyed() -> None:
    html = run_html(Run.from_log(hostile()))
    assert "<script" not in html
    assert "<img" not in html
    assert "tex2jax_ignore mathjax_ignore" in html
    for view in (html, plain(Run.from_log(hostile()))):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", view)
        view.encode()
    assert Page(html).texts["mark"] == [
        HOSTILE.translate({0x1B: "␛", 0x9B: "�", 0: "␀", 0xD800: "�"})  # whole, and as the browser reads it
    ]


def test_every_piece_of_text_finds_its_own_direction() -> None:
    html = run_html(Run.from_log(hostile()))
    for tag in ("pre", "mark", "b", "ins"):
        assert re.findall(rf"<{tag}\b[^>]*>", html)
        assert all('dir="auto"' in found for found in re.findall(rf"<{tag}\b[^>]*>", html))


def test_plain_text_reads_as_a_conversation() -> None:
    assert plain(Run.from_log(chat())) == (
        "user:\nWhat is 2 * 2?\n\nassistant:\nI need a tool=«calculator».\nexpression=«2 * 2»"
    )


def test_plain_text_of_forks() -> None:
    assert plain(Run.from_log(forks())) == (
        "user:\nTwo tips.\n\n[fork 1 of 2]\n\nassistant:\ntip1=«Tip 1.»\n\n[fork 2 of 2]\n\nassistant:\ntip2=«Tip 2.»\n\n"
        "[end of the fork]\n\nassistant:\nsummary=«Both.»"
    )


@pytest.mark.parametrize(
    ("last", "note"), [(Stopped(), "stopped"), (Failed(ValueError("too long")), "failed: ValueError: too long")]
)
def test_how_a_run_ended_is_said_in_every_view(last: Stopped | Failed, note: str) -> None:
    run = Run.from_log(cut_off(last))
    assert plain(run).endswith(f"«Once upon»\n\n[{note}]")
    assert note in run_html(run)
    assert note in ansi(run)


@pytest.mark.parametrize("source", [chat(), samples("red", "blue")])
def test_a_growing_run_only_grows_at_its_end(source: EventLog) -> None:
    log = EventLog()
    shown = {plain: "", ansi: ""}
    for event in source.events:
        log.append(event)
        for view, before in shown.items():
            shown[view] = view(Run.from_log(log))
            assert shown[view].startswith(before)


def test_a_message_says_what_its_reader_waits_for() -> None:
    log = EventLog()
    open_message(log, "assistant", "I say ")
    start_generation(log, "x")
    assert "assistant · waiting for the engine" in run_html(Run.from_log(log))
    log.append(Text("hi", "generated", "x"))
    assert "assistant · generating" in run_html(Run.from_log(log))
    log.append(Stopped())
    assert not re.search("generating|waiting", run_html(Run.from_log(log)))


def test_what_is_waited_for_and_how_it_ended_is_announced_and_counts_of_tokens_are_not() -> None:
    log = EventLog()
    open_message(log, "assistant", "")
    start_generation(log, "city")
    assert Page(run_html(Run.from_log(log))).texts["output"] == ["assistant · waiting for the engine"]
    log.append(Text("Par", "generated", "city", 1))
    page = Page(run_html(Run.from_log(log)))
    assert "output" not in page.texts
    assert "assistant · generating · 1 token" in page.texts["div"]
    log.append(Stopped())
    assert Page(run_html(Run.from_log(log))).texts["output"] == ["stopped"]


def test_text_outside_roles_says_what_its_reader_waits_for_too() -> None:
    log = EventLog()
    log.append(Text("Once ", "prompt"))
    start_generation(log, "x")
    assert ">waiting for the engine<" in run_html(Run.from_log(log))


def test_all_samples_are_shown() -> None:
    log = samples("red", "blue\n\nsky", "green")
    log.append(Text(" it is.", "prompt"))
    run = Run.from_log(log)
    expected = "assistant:\nx=«red»\n[2 of 3] «blue\n\nsky»\n[3 of 3] «green»\n it is."
    assert plain(run) == expected
    page = Page(run_html(run))
    assert page.texts["mark"] == ["red", "blue\n\nsky", "green"]
    assert page.texts["small"] == ["x 1 of 3 ", "2 of 3 ", "3 of 3 "]
    text, blocks = plain_with_spans(run)
    assert [(text[start:end], origin) for start, end, origin, _ in blocks[0]["spans"]] == [
        ("red", "generated"),
        ("blue\n\nsky", "sample"),
        ("green", "sample"),
        (" it is.", "prompt"),
    ]


def test_speed_is_told_in_the_metadata_only() -> None:
    log = samples("red", "blue")
    log.times[:] = [float(place) / 2 for place in range(len(log.times))]
    data, metadata = mimebundle(Run.from_log(log), 1000)
    assert metadata["sgl_jupyter"]["seconds"] == log.times[-1]
    assert metadata["sgl_jupyter"]["tokens_per_second"] == round(4 / log.times[-1], 1)
    assert "tokens" not in json.dumps(data)


def test_ansi_is_the_plain_text_in_colours() -> None:
    for log in ALL_LOGS.values():
        run = Run.from_log(log)
        assert re.sub(r"\x1b\[[\d;]*m", "", ansi(run)) == plain(run)


def test_spans_say_where_the_text_of_each_origin_stands() -> None:
    text, blocks = plain_with_spans(Run.from_log(chat()))
    spans = [(text[start:end], origin, variable) for block in blocks for start, end, origin, variable in block["spans"]]
    assert spans == [
        ("What is 2 * 2?", "prompt", None),
        ("I need a ", "prompt", None),
        ("calculator", "chosen", "tool"),
        (".\n", "prompt", None),
        ("2 * 2", "generated", "expression"),
    ]
    _, blocks = plain_with_spans(Run.from_log(forks()))
    assert [list(block) for block in blocks] == [["role", "spans"], ["forks"], ["role", "spans"]]


def test_the_same_text_gives_the_same_bytes() -> None:
    def bundle() -> tuple[bytes, dict[str, object]]:
        data, metadata = mimebundle(Run.from_log(chat()), 1000)
        return json.dumps(data, ensure_ascii=False).encode(), metadata

    (first, metadata), (second, other_metadata) = bundle(), bundle()
    assert first == second
    assert metadata.keys() == other_metadata.keys() == {"sgl_jupyter"}


def test_a_bundle_holds_the_text_twice_at_most() -> None:
    log = EventLog()
    needle = "needle " * 300
    add_message(log, "assistant", ("x", [("generated", needle)]))
    data, _ = mimebundle(Run.from_log(log), 100_000)
    assert set(data) == {RUN_MIME_TYPE, "text/html", "text/plain"}
    assert len(json.dumps(data)) < 3 * len(needle)


def test_long_output_is_cut_with_a_visible_note() -> None:
    log = EventLog()
    open_message(log, "assistant")
    start_generation(log, "x", *[("generated", "token ") for _ in range(20_000)])
    log.append(Finished())
    data, _ = mimebundle(Run.from_log(log), 50_000)
    assert len(data["text/html"]) < 52_000
    assert len(data["text/plain"]) < 51_000
    for view in ("text/html", "text/plain"):
        assert re.search(r"\d+ more characters are not shown here", data[view])


def test_a_token_does_not_cost_an_element() -> None:
    log = EventLog()
    open_message(log, "assistant")
    start_generation(log, "x", *[("generated", "token ") for _ in range(2_000)])
    assert len(run_html(Run.from_log(log))) < 2_000 * len("token ") + 1_000


def test_blank_lines_do_not_end_the_html_in_markdown() -> None:
    log = EventLog()
    add_message(log, "assistant", "a\n\n  \nb", ("x", [("generated", "c\n\n\nd\n\n")]))
    html = run_html(Run.from_log(log))
    assert all(line.strip() for line in html.splitlines())
    assert "".join(Page(html).texts["pre"] + Page(html).texts["mark"]) == "a\n\n  \nbc\n\n\nd\n\n"


@pytest.mark.parametrize("exporter", [HTMLExporter, MarkdownExporter])
def test_exports_keep_the_highlights(exporter: type[TemplateExporter]) -> None:
    data, metadata = mimebundle(Run.from_log(chat()), 1000)
    cell = nbformat.v4.new_code_cell("%%sgl", outputs=[nbformat.v4.new_output("display_data", data, metadata=metadata)])
    exported, _ = exporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert data["text/html"] in exported


def test_text_outside_roles_has_no_label() -> None:
    log = EventLog()
    log.append(Text("Just text.", "prompt"))
    assert plain(Run.from_log(log)) == "Just text."


def test_highlight_has_the_look_of_a_run() -> None:
    html = highlight_html(HOSTILE)
    page = Page(html)
    assert "<script" not in html
    assert len(page.texts["pre"]) == 1
    assert 'class="sgl-run tex2jax_ignore mathjax_ignore"' in html
