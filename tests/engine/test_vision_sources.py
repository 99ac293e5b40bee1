"""Where images may come from, and that nothing else is read or asked."""

from __future__ import annotations

import asyncio
import base64
import http.server
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from kernel_engine.errors import RequestError
from kernel_engine.vision import sources
from kernel_engine.vision.pictures import MAX_PIXELS, Shown, decode
from kernel_engine.vision.sources import Sources


def encoded(kind: str = "PNG", size: tuple[int, int] = (8, 6), mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 200).save(file, kind)
    return file.getvalue()


PNG = encoded()
TEXT = base64.b64encode(PNG).decode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # pyright: ignore[reportAttributeAccessIssue]
        if self.path == "/image":
            self._answer(200, PNG)
        elif self.path == "/large":
            self._answer(200, bytes(sources.MAX_FILE_BYTES + 1))
        elif self.path == "/slow":
            time.sleep(1)
            self._answer(200, PNG)
        elif self.path.startswith("/to/"):
            self._answer(302, b"", self.path.removeprefix("/to/"))
        elif self.path == "/loop":
            self._answer(302, b"", "/loop")
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # the client has heard enough
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Web(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def web() -> Iterator[Web]:
    with Web() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def files(name: str, folder: Path | None = None, *, private_urls: bool = False) -> list[bytes]:
    return asyncio.run(Sources(folder, private_urls).files(name))


@pytest.mark.parametrize("name", [TEXT, f"data:image/png;base64,{TEXT}"])
def test_in_the_request(name: str):
    assert files(name) == [PNG]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_files_of_every_kind_are_in_the_request(kind: str):
    file = encoded(kind)
    assert files(base64.b64encode(file).decode()) == [file], "the base64 of a photograph begins with a slash"


def test_the_frames_of_a_video():
    other = encoded(size=(4, 4))
    assert files("video:" + base64.b64encode(PNG + other).decode()) == [PNG, other]


def test_at_a_url(web: Web):
    assert files(f"{web.url}/image", private_urls=True) == [PNG]
    assert files(f"{web.url}/to//image", private_urls=True) == [PNG]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "2130706433", "[::ffff:127.0.0.1]"])
def test_a_private_address_is_not_asked_however_it_is_written(web: Web, host: str):
    with pytest.raises(RequestError, match=r"cannot be fetched: .+"):
        files(f"http://{host}:{web.server_port}/image")
    assert not web.asked


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "::1", "fe80::1", "fd00::1",
             "::ffff:10.0.0.1", "2002:0a00:0001::", "224.0.0.1", "0.0.0.0"]
)  # fmt: skip
def test_addresses_that_are_not_the_internets(host: str):
    assert not sources._is_public(host)


@pytest.mark.parametrize("host", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_that_are(host: str):
    assert sources._is_public(host)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/nowhere", "its server answers 404"),
        ("/large", "larger than 20 MiB"),
        ("/loop", "redirected more than 3 times"),
        ("/to/file:///etc/passwd", "cannot be fetched"),
        ("/to/ftp://127.0.0.1/image", "cannot be fetched"),
    ],
)
def test_a_url_that_gives_no_image_is_told_in_a_sentence(web: Web, path: str, complaint: str):
    with pytest.raises(RequestError, match=complaint) as error:
        files(web.url + path, private_urls=True)
    assert error.value.status == 400


def test_a_slow_server_is_not_waited_for(web: Web, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "FETCH_SECONDS", 0.2)
    with pytest.raises(RequestError, match="did not come within"):
        files(f"{web.url}/slow", private_urls=True)


def test_a_server_that_is_not_there(web: Web):
    web.shutdown()
    web.server_close()
    with pytest.raises(RequestError, match="cannot be fetched"):
        files(f"{web.url}/image", private_urls=True)


def test_a_file_is_read_from_the_allowed_folder_only(tmp_path: Path):
    folder, secret = tmp_path / "images", tmp_path / "secret.png"
    folder.mkdir()
    for path in (folder / "an image.png", secret):
        path.write_bytes(PNG)
    (folder / "link.png").symlink_to(secret)
    assert files(f"{folder}/an image.png", folder) == [PNG]
    assert files(f"file://{folder}/an%20image.png", folder) == [PNG]
    for name in (str(secret), f"{folder}/../secret.png", f"{folder}/link.png", f"file://{secret}"):
        with pytest.raises(RequestError, match="not in the folder"):
            files(name, folder)
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        files(f"{folder}/none.png", folder)
    with pytest.raises(RequestError, match="--allowed-local-media-path"):
        files(f"{folder}/an image.png")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("not base64!", "neither a URL, a data URI nor base64"),
        ("ftp://host/image.png", "neither a URL, a data URI nor base64"),
        ("data:image/png,raw", "data URI of an image must be"),
        ("data:image/png;base64", "data URI of an image must be"),
        ("video:" + TEXT[:-8], "PNG files of its frames|base64"),
        ("A" * (sources.MAX_FILE_BYTES * 3 // 2), "larger than 20 MiB"),
    ],
)
def test_what_is_no_image_is_told_in_a_sentence(name: str, complaint: str):
    with pytest.raises(RequestError, match=complaint):
        files(name)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_files_of_every_kind_are_decoded(kind: str):
    image = decode(encoded(kind))
    assert (image.mode, image.size) == ("RGB", (8, 6))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_images_of_every_mode_become_rgb(mode: str):
    assert decode(encoded(mode=mode)).mode == "RGB"


def test_a_photograph_is_turned_upright():
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.new("RGB", (8, 6)).save(file, "JPEG", exif=exif)
    assert decode(file.getvalue()).size == (6, 8)


@pytest.mark.parametrize("file", [b"", b"nothing", PNG[:40], PNG[: len(PNG) // 2], encoded("TIFF"), encoded("PPM")])
def test_a_damaged_file_or_another_format_is_an_error(file: bytes):
    with pytest.raises(RequestError, match="damaged"):
        decode(file)


def test_an_image_of_too_many_pixels_is_not_decoded():
    with pytest.raises(RequestError, match=f"at most {MAX_PIXELS // 1_000_000} million"):
        decode(encoded(size=(10_000, 5_001), mode="1"))


def test_a_model_that_sees_nothing_takes_no_images():
    assert Shown().prompt([1, 2]).ids == [1, 2]
    with pytest.raises(RequestError, match="takes text only"):
        Shown().prompt([1, 2], ["an image"])
