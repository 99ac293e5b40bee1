"""Images, videos, reasoning and the tokens' probabilities in a run and its views."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

import pytest

from sgl_jupyter import assistant, gen, image, separate_reasoning, user
from sgl_jupyter.backends.base import BaseBackend, Chunk, Image, SamplingParams, TokenLogprob, Video
from sgl_jupyter.lang.events import EventLog, Finished
from sgl_jupyter.lang.program import begin_state
from sgl_jupyter.notebook.html import run_html
from sgl_jupyter.notebook.pictures import MAX_BYTES, Picture
from sgl_jupyter.notebook.run import Run
from sgl_jupyter.notebook.shading import MAX_TOKENS
from sgl_jupyter.notebook.text import ansi, plain, plain_with_spans

from .notebook_logs import reasoned, showing, weighed
from .notebook_pictures import noise, picture
from .test_notebook_views import Page

FRAMES = Video(tuple(picture() for _ in range(3)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WebP", "BMP"])
def test_an_image_is_shown_in_its_place_at_a_bounded_size(kind: str) -> None:
    image = picture(kind=kind)
    run = Run.from_log(showing(image))
    assert plain(run) == f"user:\nSee [image, 64x48 {kind}] and say."
    html = run_html(run)
    Page(html)
    (tag,) = re.findall("See (<img [^>]*>) and say", html)
    assert f'src="{image.url}"' in tag
    assert f'alt="image, 64x48 {kind}"' in tag
    assert "max-width:320px;max-height:240px" in tag
    assert run.text.endswith("See <image> and say.")


def test_the_place_of_an_image_is_in_the_record() -> None:
    text, blocks = plain_with_spans(Run.from_log(showing(picture())))
    start, end, kind, _ = blocks[0]["spans"][1]
    assert (kind, text[start:end]) == ("image", "[image, 64x48 PNG]")


def test_a_video_is_shown_by_its_frames() -> None:
    run = Run.from_log(showing(FRAMES))
    assert "[video, 3 frames, 64x48 PNG]" in plain(run)
    assert run_html(run).count("<img ") == 3


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://example.org/a.png?x=1&y=2", "image at https://example.org/a.png?x=1&amp;y=2"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "image, of an unknown kind"),
        ("data:image/png;base64,bm90IGFuIGltYWdl", "image, a PNG that cannot be read"),
        ('data:image/png;base64,"><script>', "image, a PNG that cannot be read"),
        (noise(400).url, "image, 400x400 PNG, 0.481 MB: too large to be shown here"),
    ],
)
def test_what_is_elsewhere_large_or_no_picture_is_told_in_words(url: str, words: str) -> None:
    html = run_html(Run.from_log(showing(Image(url))))
    Page(html)
    assert f"[{words}]</small>" in html
    assert "<img" not in html
    assert "<script" not in html


def test_the_frames_of_a_video_share_the_bound() -> None:
    shown = Picture.of(Video((noise(200),) * 4))
    assert sum(map(len, shown.urls)) * 3 / 4 < MAX_BYTES
    assert "of which 2 are not shown here" in shown.words


def test_reasoning_is_shown_apart_and_folded_away_once_the_answer_is_there() -> None:
    run = Run.from_log(reasoned())
    assert plain(run) == "assistant:\nSo: x_reasoning_content=«Let me think.\n»\nx=«Paris»."
    assert run.text == "<|im_start|>assistant\nSo: Paris."
    assert run.variables == {"x": "Paris", "x_reasoning_content": "Let me think.\n"}
    page = Page(run_html(run))
    assert page.texts["mark"] == ["Paris"]
    assert page.texts["summary"] == ["x_reasoning_content"]
    assert "Let me think." in page.texts["div"]
    assert "<details style" in run_html(run)


def test_reasoning_is_open_while_it_arrives() -> None:
    source, log = reasoned(), EventLog()
    for event in source.events[:6]:
        log.append(event)
    html = run_html(Run.from_log(log))
    assert "<details open style" in html
    assert "assistant · thinking" in html
    for event in source.events[6:7]:
        log.append(event)
    html = run_html(Run.from_log(log))
    assert "<details style" in html
    assert "assistant · generating" in html


def test_text_with_reasoning_only_grows_at_its_end() -> None:
    source, log, shown = reasoned(), EventLog(), {plain: "", ansi: ""}
    for event in source.events:
        log.append(event)
        for view, before in shown.items():
            shown[view] = view(Run.from_log(log))
            assert shown[view].startswith(before)


def test_tokens_are_shaded_by_their_probability() -> None:
    log = weighed(("Par", 1.0), ("is", 0.5), ("?", 0.25), ("<|im_end|>", 0.9), text="Paris?")
    html = run_html(Run.from_log(log))
    Page(html)
    tokens = re.findall(r'<span title="([\d.]+%)" style="background-color:#d55e00(..)">([^<]*)</span>', html)
    assert [(title, text) for title, _, text in tokens] == [("100.0%", "Par"), ("50.0%", "is"), ("25.0%", "?")]
    strengths = [int(alpha, 16) for _, alpha, _ in tokens]
    assert strengths == sorted(strengths)
    assert strengths[0] == 0
    assert "im_end" not in html


class Thinker(BaseBackend):
    """Thinks, answers, and tells the log-probabilities of all its tokens so far, as SGLang does."""

    sees_images = True

    async def generate(self, prompt: str, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        told: list[TokenLogprob] = []
        for number, token in enumerate(["<think>", "Paris", "?\n", "</think>", "\n\n", "Par", "is", "<|im_end|>"]):
            told = [*told, (-float(number), number, token)]
            meta_info = {"output_token_logprobs": told, "prompt_tokens": 5, "completion_tokens": len(told)}
            yield Chunk("" if token == "<|im_end|>" else token, meta_info)


def test_a_program_that_shows_thinks_and_answers_is_recorded_once() -> None:
    state = begin_state(Thinker())
    state += user("See " + image(picture().url))
    state += assistant(separate_reasoning(gen("city"), model_type="qwen3"))
    state.sync()
    state.end()
    run = Run.from_log(state.log)
    assert run.text == state.text()
    assert (run.usage.prompt_tokens, run.usage.completion_tokens) == (5, 8)
    assert run.variables == {"city": state["city"], "city_reasoning_content": state["city_reasoning_content"]}
    assert "See [image, 64x48 PNG]" in plain(run)
    assert plain(run).count("city_reasoning_content=«Paris?") == 1
    html = run_html(run)
    shades = re.findall(r'<span title="([\d.]+%)" style="[^"]*">([^<]*)</span>', html)
    assert [(title, text) for title, text in shades if text.strip()] == [("0.7%", "Par"), ("0.2%", "is")]


def test_what_no_token_tells_is_shown_without_a_shade() -> None:
    tokens = (("a", 0.5), ("\ufffd", 0.5), ("\ufffd", 0.5), ("b", 0.5))
    html = run_html(Run.from_log(weighed(*tokens, text="aéb and more")))
    assert ">a</span>é<span" in html
    assert ">b</span> and more</mark>" in html


def test_text_is_whole_whatever_its_tokens_are() -> None:
    html = run_html(Run.from_log(weighed(*[("x ", 0.5)] * (MAX_TOKENS + 5), text="x " * (MAX_TOKENS + 5))))
    page = Page(html)
    assert html.count("<span title") == MAX_TOKENS
    assert "".join(page.texts["span"] + page.texts["mark"]) == "x " * (MAX_TOKENS + 5)


def test_a_run_without_probabilities_has_no_shades() -> None:
    log = EventLog()
    for event in weighed(text="Paris").events:
        log.append(event)
    log.append(Finished())
    assert "<span" not in run_html(Run.from_log(log))
