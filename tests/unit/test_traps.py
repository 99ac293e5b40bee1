"""Traps of SGLang's client that no other test is about. Each of the 35 has a test of its number; docs/language.md lists them."""

from __future__ import annotations

import base64
import io
import time

import pytest
from PIL import Image

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import Prompt, SamplingParams
from sgl_jupyter.backends.wire import generate_body
from sgl_jupyter.lang.chat_template import get_chat_template
from sgl_jupyter.lang.media import as_image
from sgl_jupyter.lang.program import begin_state
from sgl_jupyter.notebook.html import highlight_html
from sgl_jupyter.utils import wait_for_server

from .fake_backend import FakeBackend, within
from .fake_server import serve, sse


def test_ub25_a_prompt_shows_any_number_of_images() -> None:
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    images = tuple(as_image(file.getvalue()) for _ in range(3))
    encoded = base64.b64encode(file.getvalue()).decode()
    assert generate_body(Prompt("x", media=images), SamplingParams())["image_data"] == [encoded] * 3
    assert generate_body(Prompt("x", media=images[:1]), SamplingParams())["image_data"] == encoded


def test_ub29_waiting_for_a_server_ends_with_its_timeout() -> None:
    with pytest.raises(TimeoutError):
        within(10, wait_for_server, "http://127.0.0.1:9", 0.3)


def test_ub30_waiting_for_a_server_takes_a_key_and_does_not_outlast_the_server() -> None:
    with serve() as server:
        server.api_key = "secret"
        started = time.monotonic()
        wait_for_server(server.url, timeout=20, api_key="secret")
        assert time.monotonic() - started < 4, "SGLang's sleeps five seconds after that"
        with pytest.raises(PermissionError):
            wait_for_server(server.url, timeout=20, api_key="wrong")


def test_ub31_highlighted_text_is_escaped() -> None:
    assert "<script>" not in highlight_html("<script>alert(1)</script>")


def test_ub32_messages_begin_without_white_space_and_the_text_keeps_it() -> None:
    s = begin_state(FakeBackend(" padded ", template="default"))
    s += sgl.assistant(sgl.gen("a"))
    assert s.messages()[0]["content"] == "padded "
    assert s.text() == "ASSISTANT: padded \n"


def test_ub34_every_role_of_janus_pro_has_its_markup() -> None:
    assert get_chat_template("janus-pro").get_prefix_and_suffix("user", []) == ("<｜User｜>", "")


def test_ub35_a_generation_that_is_cut_off_says_so() -> None:
    with serve() as server:
        cut = {"completion_tokens": 128, "finish_reason": {"type": "length", "length": 128}}
        server.respond = lambda body: sse({"text": "and so on", "meta_info": cut})
        s = begin_state(sgl.RuntimeEndpoint(server.url))
        s += "Tell: " + sgl.gen("answer")
        assert s.get_meta_info("answer")["finish_reason"] == {"type": "length", "length": 128}  # type: ignore[index]
    assert server.bodies[0]["sampling_params"]["max_new_tokens"] == 128, "SGLang's number"
