"""The helpers that the tutorials import: what they show and what they take for an image."""

import base64
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

import sgl_jupyter as sgl
from sgl_jupyter import utils
from sgl_jupyter.lang.program import begin_state
from sgl_jupyter.utils import (
    download_and_cache_file,
    dump_state_text,
    is_in_ci,
    load_image,
    print_highlight,
    read_jsonl,
)

from .fake_backend import FakeBackend

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def site(png: bytes) -> Iterator[str]:
    """A site with an image, a text, redirects, and a file that does not end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, count = self.path[1:].partition("/")
            if kind == "hop" and count != "0":
                self.send_response(302)
                self.send_header("Location", f"/hop/{int(count) - 1}")
                self.end_headers()
                return
            if kind == "file":
                self.send_response(302)
                self.send_header("Location", "file:///etc/hostname")
                self.end_headers()
                return
            self.send_response(404 if kind == "missing" else 200)
            self.end_headers()
            try:
                self.wfile.write(b"text" if kind in ("text", "missing") else png)
                while kind == "endless":
                    self.wfile.write(b"x" * 65536)
            except OSError:
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_image_comes_from_every_form_it_is_passed_around_in(png: bytes, tmp_path: Path):
    path = tmp_path / "no-extension"
    path.write_bytes(png)
    encoded = base64.b64encode(png).decode()
    wrapped = base64.encodebytes(png).decode()
    for source in (path, str(path), png, encoded, wrapped, f"data:image/png;base64,{encoded}", Image.open(path)):
        image, size = load_image(source)
        assert size == (3, 2)
        assert image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"", "holds no readable image"),
        (b"not an image", "holds no readable image"),
        ("", "holds no readable image"),
        ("é", "no file, http"),
        ("missing.png", "'missing.png' is no file"),
        ("file:///etc/hostname", "no file, http"),
        ("data:image/png;base64,@@@@", "no file, http"),
        (base64.b64encode(b"not an image").decode(), "holds no readable image"),
        (17, "not int"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(source: object, words: str):
    with pytest.raises(ValueError, match=words):
        load_image(source)


def test_an_image_cut_short_is_refused_when_it_is_loaded_not_when_it_is_used():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    with pytest.raises(ValueError, match="holds no readable image"):
        load_image(buffer.getvalue()[: buffer.tell() // 2])


def test_an_image_of_absurd_size_is_refused(monkeypatch: pytest.MonkeyPatch, png: bytes):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    with pytest.raises(ValueError, match="holds no readable image"):
        load_image(png)


def test_a_url_is_downloaded_through_at_most_three_redirects(site: str):
    assert load_image(f"{site}/image")[1] == (3, 2)
    assert load_image(f"{site}/hop/3")[1] == (3, 2)
    with pytest.raises(ValueError, match="could not be downloaded"):
        load_image(f"{site}/hop/4")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("missing", "404"),
        ("text", "no readable image"),
        ("endless", "larger than 20 MB"),
        ("file", "could not be downloaded"),
    ],
)
def test_a_url_without_a_proper_image_is_refused(site: str, page: str, words: str):
    with pytest.raises(ValueError, match=words):
        load_image(f"{site}/{page}")


def test_a_download_that_takes_for_ever_is_given_up(site: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(utils, "DOWNLOAD_SECONDS", 0.0)
    with pytest.raises(ValueError, match="took more than"):
        load_image(f"{site}/endless")


def test_highlighted_text_goes_to_a_file_as_it_is(capsys: pytest.CaptureFixture[str]):
    print_highlight("<b>one</b>\n  two")
    print_highlight({"three": 3})
    assert capsys.readouterr().out == "<b>one</b>\n  two\n{'three': 3}\n"


def test_highlighted_text_stands_out_in_a_terminal_and_cannot_command_it():
    import pty

    code = r"from sgl_jupyter.utils import print_highlight; print_highlight('a\x1b[2J\x1b]0;title\x07b\tc\nd')"
    controller, terminal = pty.openpty()
    shown = subprocess.Popen([sys.executable, "-c", code], stdout=terminal, cwd=REPOSITORY)
    os.close(terminal)
    assert shown.wait(30) == 0
    assert os.read(controller, 4096).replace(b"\r", b"") == b"\x1b[1;36mab\tc\nd\x1b[0m\n"
    os.close(controller)


def test_questions_are_read_from_json_lines(tmp_path: Path):
    file = tmp_path / "questions.jsonl"
    file.write_text('# two of them\n{"question": "¿?"}\n\n["x"]\n', encoding="utf-8")
    assert list(read_jsonl(file)) == [{"question": "¿?"}, ["x"]]


def test_a_file_is_downloaded_once_and_is_there_whole_or_not_at_all(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    path = Path(download_and_cache_file(f"{site}/text"))
    assert (path.read_text(), path.is_relative_to(tmp_path)) == ("text", True)
    path.write_text("kept")
    assert Path(download_and_cache_file(f"{site}/text")).read_text() == "kept"
    named = tmp_path / "folder" / "named.txt"
    assert download_and_cache_file(f"{site}/hop/1", str(named)) == str(named)
    with pytest.raises(ValueError, match=r"could not be downloaded: .*404"):
        download_and_cache_file(f"{site}/missing", str(tmp_path / "folder" / "missing.txt"))
    assert list(named.parent.iterdir()) == [named]


def test_the_texts_of_states_are_written_one_after_another(tmp_path: Path):
    s = begin_state(FakeBackend())
    s += "¿?" + sgl.gen("x")
    file = tmp_path / "states.txt"
    dump_state_text(file, [s, "plain", 3])
    dump_state_text(file, ["more"], mode="a")
    line, end = "=" * 40, "=" * 80
    texts = ["¿?an answer", "plain", "3", "more"]
    written = [f"{line} {i} {line}\n{text}\n{end}\n\n" for i, text in zip([0, 1, 2, 0], texts, strict=True)]
    assert file.read_text(encoding="utf-8") == "".join(written)


@pytest.mark.parametrize(
    ("value", "answer"), [("true", True), ("1", True), ("TRUE", True), ("false", False), ("", False)]
)
def test_is_in_ci_is_told_by_the_environment(value: str, answer: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SGLANG_IS_IN_CI", value)
    assert is_in_ci() is answer


def test_helpers_and_lifecycle_load_nothing_heavy():
    code = "import sys, sgl_jupyter.utils, sgl_jupyter.lifecycle; print(sorted({'torch', 'transformers', 'IPython', 'httpx', 'PIL',"
    code += " 'psutil', 'kernel_engine'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert loaded.stdout == "[]\n"
