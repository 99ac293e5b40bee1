"""Images and videos in prompts: what they are made of, what is sent, and what `messages()` shows."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import Chunk, Prompt, SamplingParams
from sgl_jupyter.backends.wire import generate_body
from sgl_jupyter.lang.ir import SglImage, SglVideo
from sgl_jupyter.lang.media import MAX_BYTES, as_image, as_video
from sgl_jupyter.lang.program import begin_state

from .fake_backend import FakeBackend


class SeeingBackend(FakeBackend):
    sees_images = True

    def __init__(self) -> None:
        super().__init__(template="qwen2-vl")
        self.prompts_seen: list[Prompt] = []

    async def generate(self, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Chunk, None]:
        self.prompts_seen.append(prompt)
        async for chunk in super().generate(prompt, params):
            yield chunk


def picture(kind: str = "PNG", color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 2), color).save(file, kind)
    return file.getvalue()


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.mark.parametrize(
    ("kind", "mime_type"), [("PNG", "png"), ("JPEG", "jpeg"), ("GIF", "gif"), ("WEBP", "webp"), ("BMP", "bmp")]
)
def test_a_file_stays_as_it_is_and_is_called_what_it_is(kind: str, mime_type: str, tmp_path: Path) -> None:
    path = tmp_path / "misleading.jpg"
    path.write_bytes(picture(kind))
    whole = f"data:image/{mime_type};base64,{base64.b64encode(picture(kind)).decode()}"
    assert [as_image(source).url for source in (str(path), path, picture(kind))] == [whole] * 3


@pytest.mark.parametrize("url", ["https://example.org/cat.png", "data:image/png;base64,AAAA"])
def test_a_url_is_passed_on_and_not_fetched(url: str) -> None:
    assert as_image(url).url == url


@pytest.mark.parametrize(
    "pixels",
    [
        Image.new("RGB", (5, 2), "red"),
        Image.new("CMYK", (5, 2), (0, 255, 255, 0)),
        numpy.full((2, 5, 3), (255, 0, 0), "uint8"),
        numpy.full((2, 5, 3), (255, 0, 0), "uint8").transpose(2, 0, 1),
    ],
    ids=["pil", "pil-cmyk", "array", "channels-first"],
)
def test_pixels_become_a_png(pixels: Any) -> None:
    image = opened(as_image(pixels).url)
    assert (image.format, image.size, image.convert("RGB").getpixel((0, 0))) == ("PNG", (5, 2), (255, 0, 0))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (b"no image", ValueError, "the given bytes: not a PNG"),
        (bytes(MAX_BYTES + 1), ValueError, "more than 64 MiB"),
        (numpy.zeros((2, 4, 3)), ValueError, "uint8 of shape"),
        (numpy.zeros(7, "uint8"), ValueError, "uint8 of shape"),
        (7, TypeError, "not int"),
        ("/no/such/file.png", FileNotFoundError, "file.png"),
    ],
)
def test_what_is_no_image_is_told_where_it_is_written(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sgl.image(source)


def test_an_image_stands_for_a_token_in_the_text_and_goes_along_with_every_request_after_it() -> None:
    backend = SeeingBackend()
    s = begin_state(backend)
    s += sgl.system("Look.") + sgl.user(sgl.image(picture()) + "What is this?") + sgl.assistant(sgl.gen("a"))
    s += sgl.user("And this?" + sgl.image(picture("JPEG"))) + sgl.assistant(sgl.gen("b"))
    s.sync()
    token = "<|vision_start|><|image_pad|><|vision_end|>"
    assert f"{token}What is this?" in s.text()
    assert [len(prompt.media) for prompt in backend.prompts_seen] == [1, 2]
    first, second = (generate_body(prompt, SamplingParams()) for prompt in backend.prompts_seen)
    files = [base64.b64encode(picture(kind)).decode() for kind in ("PNG", "JPEG")]
    assert (first["image_data"], second["image_data"]) == (files[0], files)


def test_messages_hold_texts_and_images_in_their_order_and_with_their_own_types() -> None:
    s = begin_state(SeeingBackend())
    s += sgl.system("Look.")
    s += sgl.user("First " + sgl.image(picture()) + " then " + sgl.image("https://example.org/b.gif") + "?")
    png = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    assert s.messages()[1]["content"] == [
        {"type": "text", "text": "First "},
        {"type": "image_url", "image_url": {"url": png}},
        {"type": "text", "text": " then "},
        {"type": "image_url", "image_url": {"url": "https://example.org/b.gif"}},
        {"type": "text", "text": "?"},
    ]


def test_forks_see_the_images_of_their_parent_and_their_own() -> None:
    backend = SeeingBackend()
    s = begin_state(backend)
    s += sgl.image(picture())
    forks = s.fork(2)
    forks[1] += sgl.image(picture(color="blue"))
    forks += sgl.gen("x")
    forks.join()
    assert sorted(len(prompt.media) for prompt in backend.prompts_seen) == [1, 2]


def test_each_fork_of_several_can_be_given_an_image_of_its_own() -> None:
    backend = SeeingBackend()
    s = begin_state(backend)
    s += sgl.user("Which color?")
    forks = s.fork(3)
    forks += [sgl.user(sgl.image(picture(color=color)) + "?") for color in ("red", "green", "blue")]
    forks += sgl.assistant(sgl.gen("x"))
    forks.join()
    assert len({prompt.media for prompt in backend.prompts_seen}) == 3


def test_an_image_stands_wherever_text_can() -> None:
    backend, shown = SeeingBackend(), sgl.image(picture())
    s = begin_state(backend)
    s += shown
    s.user(shown)
    with s.user(), s.var_scope("scope"):
        s += "a" + shown + shown + "b"
    s += sgl.user_begin() + shown + sgl.user_end()
    with s.copy() as aside:
        aside += shown + sgl.gen("x")
    s += sgl.assistant(shown + sgl.gen("x"))
    s.sync()
    token = "<|vision_start|><|image_pad|><|vision_end|>"
    assert s["scope"] == f"a{token}{token}b"
    assert [len(prompt.media) for prompt in backend.prompts_seen] == [6, 6]
    assert s.text().count(token) == 6


@pytest.mark.parametrize("wrong", [lambda shown: shown, lambda shown: sgl.assistant(shown + sgl.gen("x"))])
def test_an_image_that_would_not_reach_a_model_that_answers_messages_is_an_error(wrong: Any) -> None:
    backend = SeeingBackend()
    backend.is_chat_model = True
    s = begin_state(backend)
    s += wrong(sgl.image(picture()))
    with pytest.raises(sgl.UnsupportedFeature, match=r"SeeingBackend .* no user's message: write user\(image"):
        s.sync()


def test_an_image_that_is_an_argument_is_traced() -> None:
    @sgl.function
    def look(s: Any, picture: Any, film: Any) -> None:
        s += sgl.image(picture) + sgl.video(film, 3) + sgl.gen("x")

    picture_argument, film_argument = (f"Argument(name={name}, value=None)" for name in ("picture", "film"))
    nodes = look.trace(backend=SeeingBackend()).nodes
    assert list(map(repr, nodes)) == [f"SglImage({picture_argument})", f"SglVideo({film_argument}, 3)", "Gen('x')"]


def test_a_backend_that_sees_no_images_says_so_by_its_name() -> None:
    s = begin_state(FakeBackend())
    s += sgl.image(picture())
    with pytest.raises(sgl.UnsupportedFeature, match="FakeBackend does not support images in prompts"):
        s.sync()


def test_a_video_is_some_of_its_frames(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 2), (shade, shade, shade)) for shade in range(0, 250, 25)]
    path = tmp_path / "animated.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    for source in (str(path), frames, [numpy.asarray(frame) for frame in frames]):
        shades = [opened(frame.url).convert("L").getpixel((0, 0)) for frame in as_video(source, 3).frames]
        assert shades == [0, 100, 225]
    assert len(as_video(frames, 99).frames) == len(frames)


def test_a_video_is_sent_as_sglang_sends_it() -> None:
    prompt = Prompt("x", media=(as_video([picture(), picture(color="blue")], 2),))
    data = generate_body(prompt, SamplingParams())["image_data"]
    assert base64.b64decode(data.removeprefix("video:")) == picture() + picture(color="blue")


def test_the_frames_of_a_video_are_png_files_whatever_they_were() -> None:
    frames = [picture("JPEG"), picture(), Image.new("RGB", (5, 2)), numpy.zeros((2, 5, 3), "uint8")]
    urls = [frame.url for frame in as_video(frames, 4).frames]
    assert [url.startswith("data:image/png;base64,") for url in urls] == [True] * 4
    assert [opened(url).size for url in urls] == [(5, 2)] * 4
    with pytest.raises(ValueError, match="must be here, and are not fetched"):
        sgl.video(["https://example.org/a.png"], 1)


def test_a_video_that_is_none_is_told_where_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_frames must be at least 1"):
        sgl.video([picture()], 0)
    with pytest.raises(TypeError, match="not int"):
        sgl.video(7, 1)
    with pytest.raises(ValueError, match="no frames"):
        sgl.video([], 1)


def test_reprs_are_those_of_sglang() -> None:
    image, video = sgl.image("data:image/png;base64,AA"), sgl.video([picture()] * 3, 2)
    assert isinstance(image, SglImage)
    assert isinstance(video, SglVideo)
    assert (repr(image), repr(video)) == ("SglImage(data:image/png;base64)", "SglVideo(list, 2)")
