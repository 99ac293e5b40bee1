"""The tutorial's last part in a real kernel: the text engine is ended, one that sees takes its place, and nothing else is left."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .notebook_kernel import NotebookKernel

LAUNCH = """
from sgl_jupyter import *
from sgl_jupyter.utils import launch_server_cmd, terminate_process, wait_for_server
server, port = launch_server_cmd("python -m kernel_engine.launch_server --model-path {model} --host 127.0.0.1")
wait_for_server(f"http://localhost:{{port}}")
set_default_backend(RuntimeEndpoint(f"http://localhost:{{port}}"))
"""
TEXT_QA = """
@function
def text_qa(s, question):
    s += user(question)
    s += assistant(gen("answer", stop="\\n", temperature=0))
"""
IMAGE_QA = """
from PIL import Image, ImageDraw
picture = Image.new("RGB", (140, 140), "white")
ImageDraw.Draw(picture).ellipse((35, 35, 105, 105), fill="red")

@function
def image_qa(s, image_file, question):
    s += user(image(image_file) + question)
    s += assistant(gen("answer", max_tokens=32, temperature=0))
"""
GONE_SECONDS = 5.0


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[NotebookKernel]:
    kernel = NotebookKernel(tmp_path, [])
    yield kernel
    kernel.close()


def run(kernel: NotebookKernel, code: str) -> None:
    cell = kernel.run(code)
    assert cell.reply["status"] == "ok", cell.traceback


def engines(runtime: Path) -> list[str]:
    """The models of the engine processes that belong to the kernel of this runtime folder."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            is_ours = process.environ().get("JUPYTER_RUNTIME_DIR") == str(runtime) and process.pid != os.getpid()
            if is_ours and "kernel_engine.launch_server" in words and process.status() != psutil.STATUS_ZOMBIE:
                # The supervisor's own command line holds the engine's.
                found += (
                    [words[words.index("--model-path") + 1]] if "sgl_jupyter.lifecycle.supervisor" not in words else []
                )
        except psutil.Error:
            continue
    return found


def test_one_engine_takes_the_place_of_the_other(kernel: NotebookKernel, tmp_path: Path) -> None:
    run(kernel, LAUNCH.format(model="tiny-chat") + TEXT_QA)
    assert "Paris" in kernel.value("text_qa('What is the capital of France?')['answer']")
    assert engines(tmp_path) == ["tiny-chat"]
    run(kernel, "terminate_process(server)")
    assert engines(tmp_path) == []
    run(kernel, LAUNCH.format(model="tiny-vision") + IMAGE_QA)
    assert "red" in kernel.value("image_qa(picture, 'What is in the image?')['answer']").lower()
    assert engines(tmp_path) == ["tiny-vision"]
    assert kernel.value("len(__import__('sgl_jupyter').engines())") == "1"
    run(kernel, "terminate_process(server)")
    deadline = time.monotonic() + GONE_SECONDS
    while (left := engines(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert kernel.value("len(__import__('sgl_jupyter').engines())") == "0"
