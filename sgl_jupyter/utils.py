"""The helpers that SGLang's tutorials and benchmarks import, under SGLang's names."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .lifecycle.console import kernel_shell, printable
from .lifecycle.process import SupervisedProcess
from .lifecycle.server_command import launch_server_cmd, wait_for_server

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "download_and_cache_file",
    "dump_state_text",
    "is_in_ci",
    "launch_server_cmd",
    "load_image",
    "print_highlight",
    "read_jsonl",
    "terminate_process",
    "wait_for_server",
]

MAX_DOWNLOAD = 20 << 20
DOWNLOAD_SECONDS = 30.0
MAX_REDIRECTS = 3
KILL_SECONDS = 10.0


def is_in_ci() -> bool:
    """True where SGLang's documentation is built: SGLANG_IS_IN_CI is `true` or `1`."""
    return os.environ.get("SGLANG_IS_IN_CI", "").lower() in ("true", "1")


def terminate_process(process: SupervisedProcess | subprocess.Popen[Any]) -> None:
    """End a process and all that it started; return when they are gone and their memory is free."""
    if isinstance(process, SupervisedProcess):
        process.terminate()
        return
    import psutil

    if process.poll() is not None:
        return
    family = psutil.Process(process.pid)
    doomed = [*family.children(recursive=True), family]
    for member in doomed:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(KILL_SECONDS)
    psutil.wait_procs(doomed, KILL_SECONDS)


def print_highlight(x: Any) -> None:
    """Show `x`, a string or anything that `str` takes, so that it stands out; markup in it is shown as it is written."""
    text = str(x)
    if kernel_shell() is not None:
        from IPython.display import display

        from .notebook.html import highlight_html

        display({"text/html": highlight_html(text), "text/plain": text}, raw=True)
    elif sys.stdout.isatty():
        print(f"\x1b[1;36m{printable(text)}\x1b[0m")
    else:
        print(text)


def read_jsonl(filename: str | os.PathLike[str]) -> Iterator[Any]:
    """What the lines of a file hold, each of them JSON. A line that begins with `#` is a comment."""
    with open(filename, encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip() and not line.startswith("#"))


def download_and_cache_file(url: str, filename: str | None = None) -> str:
    """The path of what is at an http(s) URL: `filename`, or a file in the user's cache. One that is there is not fetched again.

    Raises ValueError if it cannot be fetched.
    """
    import httpx

    name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{url.rpartition('/')[2]}"
    path = Path(filename or Path.home() / ".cache" / "sgl-jupyter" / name)
    if path.exists():
        return str(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # so that a file in its place is always whole
        try:
            with httpx.stream("GET", url, follow_redirects=True) as response, open(f"{folder}/part", "wb") as part:
                response.raise_for_status()
                part.writelines(response.iter_bytes())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ValueError(f"{url} could not be downloaded: {error}") from error
        os.replace(f"{folder}/part", path)
    return str(path)


def dump_state_text(filename: str | os.PathLike[str], states: Iterable[Any], mode: str = "w") -> None:
    """Write the texts of states to a file, each under its number. What is no state is written as `str` has it."""
    with open(filename, mode, encoding="utf-8") as file:
        for number, state in enumerate(states):
            text = state.text() if hasattr(state, "text") else str(state)
            file.write(f"{'=' * 40} {number} {'=' * 40}\n{text}\n{'=' * 80}\n\n")


def load_image(source: Image | str | bytes | os.PathLike[str]) -> tuple[Image, tuple[int, int]]:
    """The image and its size (width, height) in pixels, decoded, from an image, a path, bytes, an http(s) URL of at most
    20 MB, a `data:` URI or base64 text.

    Raises ValueError if there is no image to be had from `source`.
    """
    from PIL import Image

    if isinstance(source, Image.Image):
        return source, source.size
    data = _image_bytes(source)
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{_shorten(source)} holds no readable image: {error}") from error
    return image, image.size


def _image_bytes(source: str | bytes | os.PathLike[str]) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, os.PathLike):
        return Path(source).read_bytes()
    if not isinstance(source, str):
        kind = type(source).__name__
        raise ValueError(f"an image is a path, bytes, URL, data: URI, base64 text or PIL image, not {kind}")
    if source.startswith(("http://", "https://")):
        return _download(source)
    if os.path.isfile(source):
        return Path(source).read_bytes()
    encoded = source.partition(",")[2] if source.startswith("data:") else source
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError:
        raise ValueError(f"{_shorten(source)} is no file, http(s) URL, data: URI or base64 text") from None


def _download(url: str) -> bytes:
    import httpx

    deadline = time.monotonic() + DOWNLOAD_SECONDS
    data = bytearray()
    try:
        with (
            httpx.Client(follow_redirects=True, max_redirects=MAX_REDIRECTS, timeout=10.0) as client,
            client.stream("GET", url) as response,
        ):
            response.raise_for_status()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > MAX_DOWNLOAD:
                    raise ValueError(f"the image at {url} is larger than {MAX_DOWNLOAD >> 20} MB")
                if time.monotonic() > deadline:
                    raise ValueError(f"the image at {url} took more than {DOWNLOAD_SECONDS:g} s to download")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ValueError(f"the image at {url} could not be downloaded: {error}") from error
    return bytes(data)


def _shorten(source: object) -> str:
    text = repr(source)
    return text if len(text) <= 80 else text[:77] + "..."
