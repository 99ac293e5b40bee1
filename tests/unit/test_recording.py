"""Recorded programs run again without their backend, and say so where they cannot."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import sgl_jupyter as sgl
from sgl_jupyter.backends.base import BackendError, BackendUnreachable, Image, Prompt, SamplingParams, Video
from sgl_jupyter.backends.recording import NotRecorded, Recorder, Replay, record
from sgl_jupyter.backends.takes import request_of
from sgl_jupyter.lang.events import Text
from sgl_jupyter.lang.loop import background_loop

from .fake_backend import FakeBackend, within


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.jsonl"


@sgl.function
def talk(s, question):
    s += sgl.user(question)
    s += sgl.assistant(sgl.gen("answer", temperature=0))


def on_loop(coroutine: Any) -> Any:
    return asyncio.run_coroutine_threadsafe(coroutine, background_loop()).result(20)


async def chunks_of(backend: Any, prompt: str, **params: Any) -> list[Any]:
    return [chunk async for chunk in backend.generate(Prompt(prompt), SamplingParams(**params))]


def events_of(state: sgl.ProgramState) -> list[Any]:
    state.sync()
    return list(state.log.events)


def test_equal_requests_are_answered_in_the_order_in_which_they_were_made(path: Path) -> None:
    with record(path, FakeBackend("one", "two", "three")) as recorder:
        recorded = [talk("Q")["answer"] for _ in range(3)]
        assert repr(recorder) == f"Recorder({recorder._backend!r}, {str(path)!r})"
    replay = Replay(path)
    assert [talk(question="Q", backend=replay)["answer"] for _ in range(3)] == recorded == ["one", "two", "three"]
    with pytest.raises(NotRecorded, match="has 3 of this request, and it is made once more"):
        talk("Q", backend=replay)["answer"]
    assert talk("Q", backend=Replay(path))["answer"] == "one"


def test_a_state_and_its_events_are_the_same(path: Path) -> None:
    backend = FakeBackend(["a ", "b ", "\U0001f600\u2028 c"])
    first = talk.run("Q", backend=Recorder(backend, path))
    recorded = events_of(first)
    again = talk.run("Q", backend=Replay(path))
    assert events_of(again) == recorded
    assert again.text() == first.text()
    assert again.get_meta_info("answer") == first.get_meta_info("answer")


def test_answers_that_overtake_each_other_are_given_back_to_the_right_request(path: Path) -> None:
    late = threading.Event()
    backend = FakeBackend([late, "slow"], ["fast"])

    async def both(place: Any) -> list[str]:
        async def one() -> str:
            return "".join(chunk.text for chunk in await chunks_of(place, "p"))

        first, second = asyncio.create_task(one()), asyncio.create_task(one())
        await second
        late.set()
        return [await first, second.result()]

    assert on_loop(both(Recorder(backend, path))) == ["slow", "fast"]
    assert on_loop(both(Replay(path))) == ["slow", "fast"]


def test_samples_scores_choices_and_server_info(path: Path) -> None:
    class Server(FakeBackend):
        def get_server_info(self) -> dict[str, Any]:
            states = [{"api_key": "sk-3", "running": 0}]
            return {"max_total_tokens": 7, "api_key": "sk-1", "admin_api_key": "sk-2", "internal_states": states}

        async def choose(self, prompt: Prompt, choices: Any) -> tuple[str, dict[str, Any]]:
            return choices[1], {"why": ["so"]}

    async def ask(place: Any) -> list[Any]:
        params = SamplingParams(n=2, stop=("x", "y"), logit_bias={"5": 1.0})
        return [
            await place.sample(Prompt("p"), params),
            await place.score(Prompt("p"), ["a", "b"]),
            await place.choose(Prompt("p"), ["a", "b"]),
        ]

    recorder = Recorder(Server("red", "blue"), path)
    recorded = on_loop(ask(recorder))
    assert recorder.get_server_info() == Server().get_server_info()
    replay = Replay(path)
    assert on_loop(ask(replay)) == recorded
    assert replay.get_server_info() == {"max_total_tokens": 7, "internal_states": [{"running": 0}]}
    assert "sk-" not in path.read_text()
    replay.flush_cache()
    replay.abort_all()
    on_loop(replay.cache_prefix(Prompt("anything")))


def test_lists_that_grow_are_written_once_and_come_back_whole(path: Path) -> None:
    metas = [
        {"logprobs": [[-0.1, 5, "a"]], "n": 1, "gone": 1},
        {"logprobs": [[-0.1, 5, "a"], [-0.2, 6, None]], "n": 2, "same": None},
        {"logprobs": [[-0.3, 7, "c"]], "n": 2, "same": None},
    ]

    class Growing(FakeBackend):
        async def generate(self, prompt: Prompt, params: SamplingParams) -> Any:
            for meta in metas:
                yield sgl.backends.base.Chunk("t", meta)

    on_loop(chunks_of(Recorder(Growing(), path), "p"))
    assert [chunk.meta_info for chunk in on_loop(chunks_of(Replay(path), "p"))] == metas
    assert path.read_text().count("-0.1") == 1


@pytest.mark.parametrize("error", [BackendError("no room", 503), BackendUnreachable("gone away")])
def test_errors_are_replayed(path: Path, error: BackendError) -> None:
    for place in (lambda: Recorder(FakeBackend(["some ", error]), path), lambda: Replay(path)):
        state = talk.run("Q", backend=place())
        with pytest.raises(type(error), match=str(error)) as raised:
            state["answer"]
        assert raised.value.status == error.status
        texts = [event.text for event in state.log.events if isinstance(event, Text)]
        assert texts[-1] == "some "


def test_a_request_that_was_left_early_can_be_left_early_again(path: Path) -> None:
    async def first_words(place: Any, count: int) -> list[str]:
        words = []
        chunks = place.generate(Prompt("p"), SamplingParams())
        async for chunk in chunks:
            words.append(chunk.text)
            if len(words) == count:
                break
        await chunks.aclose()
        return words

    recorder = Recorder(FakeBackend(["one ", "two ", "three"]), path)
    assert on_loop(first_words(recorder, 2)) == ["one ", "two "]
    assert on_loop(first_words(Replay(path), 2)) == ["one ", "two "]
    with pytest.raises(BackendError, match="stopped at this point while it was recorded"):
        on_loop(first_words(Replay(path), 3))


def test_a_request_that_was_not_recorded_shows_the_nearest_that_was(path: Path) -> None:
    recorder = Recorder(FakeBackend("x"), path)
    on_loop(chunks_of(recorder, "What is the capital of France?", temperature=0.0))
    on_loop(chunks_of(recorder, "Tell me a joke.", max_new_tokens=5))
    replay = Replay(path)
    with pytest.raises(NotRecorded) as raised:
        on_loop(chunks_of(replay, "What is the capital of Japan?", temperature=0.5))
    message = str(raised.value)
    assert "temperature is 0.5 here and 0.0 there" in message
    assert (
        "part at character 23: 'What is the capital of Japan?' here, 'What is the capital of France?' there" in message
    )
    with pytest.raises(NotRecorded, match="max_new_tokens is not given here and 5 there"):
        on_loop(chunks_of(replay, "Tell me a joke."))
    with pytest.raises(NotRecorded, match="No request to score was recorded"):
        on_loop(replay.score(Prompt("p"), ["a"]))


@pytest.mark.parametrize(("speed", "least", "most"), [(0.0, 0.0, 0.1), (1.0, 0.25, 2.0), (5.0, 0.05, 0.2)])
def test_time_passes_as_recorded_or_not_at_all(path: Path, speed: float, least: float, most: float) -> None:
    lines = [
        {"recording": 1, "backend": {"model_path": "m"}},
        {"number": 0, **request_of("generate", Prompt("p"), params=SamplingParams()),
         "chunks": [{"at": 0.2, "text": "a"}, {"at": 0.25, "text": "b"}], "end": 0.25},
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    begun = time.monotonic()
    assert [chunk.text for chunk in on_loop(chunks_of(Replay(path, speed), "p"))] == ["a", "b"]
    assert least <= time.monotonic() - begun < most


def test_a_recording_is_appended_to_and_what_a_crash_left_is_cut_off(path: Path) -> None:
    on_loop(chunks_of(Recorder(FakeBackend("one"), path), "p"))
    with path.open("a") as file:
        file.write('{"number": 1, "method": "gen')
    assert [chunk.text for chunk in on_loop(chunks_of(Replay(path), "p"))] == ["one", ""]
    on_loop(chunks_of(Recorder(FakeBackend("two"), path), "p"))
    replay = Replay(path)
    assert [on_loop(chunks_of(replay, "p"))[0].text for _ in range(2)] == ["one", "two"]
    assert [json.loads(line)["number"] for line in path.read_text().splitlines() if "number" in line] == [0, 0]


def test_what_is_no_recording_is_left_as_it_is(path: Path) -> None:
    path.write_text("my notes\n")
    for use in (lambda: Recorder(FakeBackend(), path), lambda: Replay(path)):
        with pytest.raises(ValueError, match="is no recording of format 1: line 1 is b'my notes'"):
            use()
    assert path.read_text() == "my notes\n"
    with pytest.raises(FileNotFoundError):
        Replay(path.with_name("none"))
    path.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        Replay(path)
    with pytest.raises(ValueError, match="speed must be 0 or more"):
        Replay(path, speed=-1)


def test_another_model_is_recorded_to_another_file(path: Path) -> None:
    one, other = FakeBackend(), FakeBackend()
    one.model_path, other.model_path = "org/one", "org/other"
    Recorder(one, path)
    with pytest.raises(ValueError, match="is a recording of 'org/one': record 'org/other' to another file"):
        Recorder(other, path)


def test_images_are_known_by_their_content_and_not_written(path: Path) -> None:
    red, blue = Image("data:image/png;base64,cmVk"), Image("data:image/png;base64,Ymx1ZQ==")
    requests = [
        request_of("generate", Prompt("p", media=media))
        for media in ([red], [blue], [Image("https://host/red.png")], [Video((red, blue))], [])
    ]
    assert len({json.dumps(request) for request in requests}) == len(requests)
    assert "cmVk" not in json.dumps(requests)


def test_a_recorder_and_its_replay_tell_what_the_backend_tells(path: Path) -> None:
    backend = FakeBackend(template="llama-3-instruct")
    backend.model_path, backend.sees_images = "org/seeing", True
    backend.model_template = sgl.backends.base.ModelTemplate("{{ x }}", "<s>", "</s>")
    recorder = Recorder(backend, path)
    for name in ("model_path", "model_type", "chat_template", "sees_images", "model_template", "is_chat_model"):
        assert getattr(recorder, name) == getattr(Replay(path), name) == getattr(backend, name)


def test_a_chat_template_that_a_backend_was_given_is_recorded(path: Path) -> None:
    backend = FakeBackend()
    backend.chat_template = sgl.lang.chat_template.get_chat_template("mistral")
    Recorder(backend, path)
    replayed = Replay(path).get_chat_template()
    conversation = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert replayed.get_prompt(conversation) == backend.chat_template.get_prompt(conversation)
    assert list(replayed.stop_str) == ["</s>"]


def test_forks_and_threads_record_and_replay(path: Path) -> None:
    @sgl.function
    def tips(s, topic):
        s += topic
        forks = s.fork(3)
        for number, fork in enumerate(forks):
            fork += f" tip {number}: " + sgl.gen("tip")
        s += sgl.select("best", ["0", "1"])
        s += "".join(fork["tip"] for fork in forks)

    def run(backend: Any) -> list[str]:
        states = tips.run_batch([{"topic": f"t{n}"} for n in range(20)], backend=backend, num_threads=8)
        return [state.text() for state in states]

    recorded = within(20, run, Recorder(FakeBackend(lambda prompt: f"<{prompt[::-1]}>"), path))
    assert within(20, run, Replay(path)) == recorded
