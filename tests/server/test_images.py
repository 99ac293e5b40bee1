"""Images through HTTP, from every place they may be in a request, on tiny-vision."""

from __future__ import annotations

import base64
import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image, ImageDraw

import sgl_jupyter as sgl

from .support import ServerProcess, running_server

PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
GREEDY = {"temperature": 0, "max_new_tokens": 24}
QUESTION = "What is in the image?"


def drawn(shape: str, colour: str, size: tuple[int, int] = (140, 140)) -> Image.Image:
    """One large shape in the middle of a white image."""
    image = Image.new("RGB", size, "white")
    across, down, half = size[0] // 2, size[1] // 2, min(size) // 4
    box = (across - half, down - half, across + half, down + half)
    draw = ImageDraw.Draw(image)
    {"circle": draw.ellipse, "square": draw.rectangle}[shape](box, fill=colour)
    return image


def file_of(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


RED_CIRCLE, BLUE_SQUARE = drawn("circle", "red"), drawn("square", "blue", (168, 112))
RED_FILE = file_of(RED_CIRCLE)
RED, BLUE = (base64.b64encode(file_of(image)).decode() for image in (RED_CIRCLE, BLUE_SQUARE))
RED_URI = f"data:image/png;base64,{RED}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server may read: it holds one image."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "red.png").write_bytes(RED_FILE)
    return folder


@pytest.fixture(scope="module")
def sighted(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[ServerProcess]:
    arguments = ["--model-path", "tiny-vision", "--max-total-tokens", "8000", "--allow-private-image-urls"]
    with running_server(
        tmp_path_factory.mktemp("vision"), *arguments, "--allowed-local-media-path", str(folder)
    ) as server:
        yield server


@pytest.fixture
def server(sighted: ServerProcess) -> Iterator[ServerProcess]:
    """The server, which must be idle and alive after each test, and log no traceback in it."""
    before = len(sighted.log)
    yield sighted
    sighted.wait_until_idle()
    assert "Traceback" not in (new := sighted.log[before:]), new[:4000]


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """A server of one image."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/red.png" else 404)
            self.end_headers()
            self.wfile.write(RED_FILE)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def chat(question: str, places: str = PLACE) -> str:
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    return f"{system}<|im_start|>user\n{places}{question}<|im_end|>\n<|im_start|>assistant\n"


def ask(server: ServerProcess, image_data: Any, text: Any = None, **body: Any) -> Any:
    body = {"text": text or chat(QUESTION), "image_data": image_data, "sampling_params": GREEDY} | body
    response = server.post("/generate", **body)
    assert response.status_code == 200, response.text
    return response.json()


def complaint(server: ServerProcess, **body: Any) -> str:
    response = server.post("/generate", **{"text": chat(QUESTION), "sampling_params": GREEDY} | body)
    assert response.status_code == 400, response.text
    return response.json()["error"]["message"]


def test_the_model_says_that_it_sees(server: ServerProcess):
    info = server.get("/get_model_info").json()
    assert (info["has_image_understanding"], info["model_type"]) == (True, "qwen2_5_vl")


def test_an_image_from_every_place_is_the_same_image(server: ServerProcess, web: str, folder: Path):
    server.post("/flush_cache")
    answers = [ask(server, data) for data in (RED, RED_URI, f"{web}/red.png", str(folder / "red.png"), [RED])]
    assert len({answer["text"] for answer in answers}) == 1
    assert {"red", "circle"} <= set(answers[0]["text"].lower().strip(".").split())
    cached = [answer["meta_info"]["cached_tokens"] for answer in answers]
    prompt = answers[0]["meta_info"]["prompt_tokens"]
    assert cached == [0, *[prompt - 1] * 4]


def test_a_second_question_computes_itself_only(server: ServerProcess):
    server.post("/flush_cache")
    ask(server, RED)
    meta = ask(server, RED, chat("Is there a square?"))["meta_info"]
    with_question = len(
        server.post("/tokenize", prompt="Is there a square?<|im_end|>\n<|im_start|>assistant\n").json()["tokens"]
    )
    assert meta["prompt_tokens"] - meta["cached_tokens"] <= with_question


def test_another_image_is_another_answer(server: ServerProcess):
    red, blue = ask(server, RED), ask(server, BLUE)
    assert "blue" in blue["text"].lower()
    assert red["text"] != blue["text"]


def test_a_batch_takes_an_image_for_each_or_one_for_all(server: ServerProcess):
    prompts = [chat(QUESTION), chat(QUESTION)]
    red, blue = ask(server, [RED, BLUE], prompts)
    assert (red["text"], blue["text"]) == (ask(server, RED)["text"], ask(server, BLUE)["text"])
    assert [each["text"] for each in ask(server, [[RED], [BLUE]], prompts)] == [red["text"], blue["text"]]
    assert [each["text"] for each in ask(server, RED, prompts)] == [red["text"], red["text"]]
    mixed = ask(server, [RED, None], [chat(QUESTION), chat("What is the capital of France?", places="")])
    assert mixed[0]["text"] == red["text"]


def test_several_images_stand_in_their_order(server: ServerProcess):
    one, two = (ask(server, image)["meta_info"]["prompt_tokens"] for image in (RED, BLUE))
    nothing = server.post("/generate", text=chat(QUESTION, places=""), sampling_params={"max_new_tokens": 0}).json()
    both = ask(server, [RED, BLUE], chat(QUESTION, places=PLACE * 2))
    assert both["meta_info"]["prompt_tokens"] == one + two - nothing["meta_info"]["prompt_tokens"]
    turned = ask(server, [BLUE, RED], chat(QUESTION, places=PLACE * 2))
    assert turned["meta_info"]["cached_tokens"] < both["meta_info"]["prompt_tokens"] - 20


def test_the_frames_of_a_video_are_as_many_images(server: ServerProcess):
    video = "video:" + base64.b64encode(RED_FILE + file_of(BLUE_SQUARE)).decode()
    both = ask(server, [RED, BLUE], chat(QUESTION, places=PLACE * 2))
    shown = ask(server, video)
    assert shown["meta_info"]["prompt_tokens"] == both["meta_info"]["prompt_tokens"]
    assert shown["text"] == both["text"]


def test_samples_streams_and_constraints_see_it_too(server: ServerProcess):
    samples = ask(server, RED, sampling_params=GREEDY | {"n": 3, "temperature": 1})
    assert len(samples) == 3
    colours = GREEDY | {"regex": "(red|green|blue)"}
    for picture, colour in ((RED, "red"), (BLUE, "blue")):
        constrained = ask(server, picture, chat("What colour is the shape?"), sampling_params=colours)
        assert constrained["text"] == colour
    with (
        server.client() as client,
        client.stream(
            "POST",
            "/generate",
            json={"text": chat(QUESTION), "image_data": RED, "sampling_params": GREEDY, "stream": True},
        ) as response,
    ):
        events = [line for line in response.iter_lines() if line.startswith("data: {")]
    assert ask(server, RED)["text"] in events[-1]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"image_data": "not base64!"}, "neither a URL, a data URI nor base64"),
        ({"image_data": base64.b64encode(b"no image").decode()}, "an image is damaged, or not a PNG"),
        ({"image_data": base64.b64encode(RED_FILE[:60]).decode()}, "an image is damaged"),
        ({"image_data": "http://127.0.0.1:9/a.png"}, "cannot be fetched"),
        ({"image_data": "/etc/hostname"}, "not in the folder that this server may read"),
        ({"image_data": 5}, "image_data must be a string"),
        ({"image_data": [RED, 5]}, "image_data must be a string"),
        ({"image_data": [RED, BLUE]}, "1 places for images, and 2 are given"),
        ({}, "1 places for images, and 0 are given"),
        ({"text": "no place", "image_data": RED}, "0 places for images, and 1 are given: write <|image_pad|>"),
        ({"text": ["a", "b"], "image_data": [RED]}, r"The length of image_data (1) should be equal to the batch size (2)"),
        ({"image_data": base64.b64encode(file_of(Image.new("1", (9_000, 6_000)))).decode()}, "at most 50 million"),
        ({"image_data": base64.b64encode(file_of(Image.new("1", (3_000, 4)))).decode()}, "the model does not take"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_told_in_a_sentence(server: ServerProcess, body: dict[str, Any], sentence: str):
    assert sentence in complaint(server, **body)


def test_bad_images_do_not_disturb_others(server: ServerProcess):
    wanted = ask(server, RED)["text"]
    for number in range(20):
        complaint(server, image_data=base64.b64encode(RED_FILE[: 10 * number]).decode() or "!")
        assert ask(server, RED)["text"] == wanted


# -- OpenAI's route -----------------------------------------------------------------------------------------------------


@pytest.fixture
def client(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def shown(*urls: str, text: str = QUESTION) -> list[Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


def test_openais_client_shows_images(client: openai.OpenAI, server: ServerProcess, web: str):
    native = ask(server, RED)
    for url in (RED_URI, f"{web}/red.png"):
        answer = client.chat.completions.create(model="x", messages=shown(url), temperature=0, max_tokens=24)
        assert answer.choices[0].message.content == native["text"]
        assert answer.usage
        assert answer.usage.prompt_tokens == native["meta_info"]["prompt_tokens"]


def test_openais_client_shows_images_in_several_turns(client: openai.OpenAI):
    messages = shown(RED_URI)
    first = client.chat.completions.create(model="x", messages=messages, temperature=0, max_tokens=24)
    messages += [
        {"role": "assistant", "content": first.choices[0].message.content},
        *shown(f"data:image/png;base64,{BLUE}"),
    ]
    second = client.chat.completions.create(model="x", messages=messages, temperature=0, max_tokens=24)
    assert second.choices[0].message.content


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"type": "image_url"}, 'must be {"type": "image_url"'),
        ({"type": "image_url", "image_url": {"url": 5}}, 'must be {"type": "image_url"'),
        ({"type": "input_audio", "input_audio": {}}, "this model takes text and images"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "an image is damaged"),
    ],
)
def test_a_wrong_part_has_openais_form_of_an_error(client: openai.OpenAI, part: dict[str, Any], sentence: str):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="x", messages=[{"role": "user", "content": [part]}])  # pyright: ignore
    assert sentence in str(error.value)


def test_tokens_of_a_conversation_count_its_images(server: ServerProcess):
    counted = server.post("/tokenize", messages=shown(RED_URI)).json()["count"]
    assert counted == ask(server, RED)["meta_info"]["prompt_tokens"]


# -- the language -------------------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(server: ServerProcess) -> sgl.RuntimeEndpoint:
    return sgl.RuntimeEndpoint(server.url)


@sgl.function
def image_qa(s: Any, image: Any, question: str) -> None:
    s += sgl.user(sgl.image(image) + question)
    s += sgl.assistant(sgl.gen("answer", max_tokens=24, temperature=0))


def test_the_tutorials_program_sees(endpoint: sgl.RuntimeEndpoint, server: ServerProcess, tmp_path: Path):
    path = tmp_path / "red.png"
    path.write_bytes(RED_FILE)
    answers = {
        image_qa.run(image, QUESTION, backend=endpoint)["answer"]
        for image in (RED_CIRCLE, RED_FILE, str(path), RED_URI)
    }
    assert answers == {ask(server, RED)["text"]}


def test_choices_and_forks_over_one_image(endpoint: sgl.RuntimeEndpoint):
    @sgl.function
    def look(s: Any) -> None:
        s += sgl.user(sgl.image(RED_CIRCLE) + "What colour is the circle?")
        branches = s.fork(2)
        for branch in branches:
            branch += sgl.assistant(sgl.gen("answer", max_tokens=16, temperature=0))
        s += sgl.assistant(sgl.select("colour", ["Blue.", "Red."]))
        s["forked"] = [branch["answer"] for branch in branches]

    state = look.run(backend=endpoint)
    assert state["colour"] == "Red."
    assert len(set(state["forked"])) == 1


def test_several_images_in_one_turn_and_over_turns(endpoint: sgl.RuntimeEndpoint):
    @sgl.function
    def compare(s: Any) -> None:
        s += sgl.user(sgl.image(RED_CIRCLE) + sgl.image(BLUE_SQUARE) + "What is in the second image?")
        s += sgl.assistant(sgl.gen("second", max_tokens=24, temperature=0))
        s += sgl.user("And here?" + sgl.image(RED_CIRCLE))
        s += sgl.assistant(sgl.gen("third", max_tokens=24, temperature=0))

    state = compare.run(backend=endpoint)
    state.sync()
    assert state.error() is None
    assert state["second"]
    assert state["third"]
    assert state.get_meta_info("third")["prompt_tokens"] > 50
