"""Flags that change what a server says and does, on a server that was started with many of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sgl_jupyter.utils import launch_server_cmd, terminate_process, wait_for_server

from .support import ServerProcess, running_server

CONTEXT = 3000
FLAGS = f"""
    --load-format dummy --device cpu --dtype bfloat16 --random-seed 3 --json-model-override-args {{"max_position_embeddings":4096}}
    --served-model-name named --context-length {CONTEXT}
    --max-running-requests 4 --schedule-policy lof --attention-backend flashinfer --page-size 16
    --log-level-http warning --log-requests --log-requests-level 1 --show-time-cost --enable-request-time-stats-logging
    --warmups prefill,batch,regex,json_schema --stream-output --allow-auto-truncate
    --enable-metrics --collect-tokens-histogram --bucket-time-to-first-token 0.5 100 --bucket-inter-token-latency 0.25
    --bucket-e2e-request-latency 1 2 3 --preferred-sampling-params {{"top_p":0.5}}
    --grammar-backend llguidance --constrained-json-whitespace-pattern #
"""
SCHEMA = '{"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": false}'


@pytest.fixture(scope="module")
def flagged(config_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("flagged")
    (folder / "config.json").write_text((config_folder / "config.json").read_text())
    paths = ["--model-path", str(folder), "--tokenizer-path", str(config_folder)]
    with running_server(folder, *paths, *FLAGS.split()) as server:
        yield server


def events(server: ServerProcess, **params: Any) -> list[dict[str, Any]]:
    """What a streamed request is answered with, event by event."""
    body = {"text": "hello", "stream": True, "sampling_params": params, "return_logprob": True, "logprob_start_len": 0}
    lines = [line.removeprefix("data: ") for line in server.post("/generate", **body).text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def metric(server: ServerProcess, name: str) -> dict[str, float]:
    """Values of a metric by the bounds of its buckets."""
    found = re.findall(
        rf'^sglang:{name}_bucket{{le="([^"]+)",model_name="named"}} (\S+)$', server.get("/metrics").text, re.M
    )
    return {bound: float(value) for bound, value in found}


def test_flags_that_change_nothing_are_named_once(flagged: ServerProcess):
    assert flagged.log.count("WARNING: --attention-backend changes nothing here: ") == 1
    assert flagged.log.count("WARNING: --page-size changes nothing here: ") == 1
    assert flagged.log.count("changes nothing") == 2


def test_warm_ups_run_before_it_is_ready(flagged: ServerProcess):
    before, ready, _ = flagged.log.partition("The server is fired up and ready to roll!")
    assert ready
    rids = re.findall(r"Req Time Stats\(rid=warmup-([^,]+), input len=(\d+)", before)
    assert [name for name, _ in rids] == ["first", "prefill", *(f"batch-{n}" for n in range(4)), "regex", "json-schema"]
    assert int(dict(rids)["prefill"]) == 512


def test_each_part_of_the_start_is_timed(flagged: ServerProcess):
    found = re.findall(r"Time cost of (.+): \d+\.\d\d s", flagged.log)
    assert found == ["imports", "the model", "imports of the server", "the engine", "warm-up"]


def test_requests_are_logged_with_the_beginning_of_their_texts(flagged: ServerProcess):
    prompt = "x" * 2500 + "the end"
    answer = flagged.generate(prompt, rid="logged", ignore_eos=True)
    received, finished = [line for line in flagged.log.splitlines() if "logged" in line and "Stats" not in line]
    assert re.search(r"Receive: rid=logged, prompt_tokens=2507, SamplingParams\(.*\), text='x{2048}'$", received)
    assert re.search(r"Finish: {'id': 'logged', .*'completion_tokens': 8.*}, text=", finished)
    assert len(answer["output_ids"]) == 8
    assert re.search(
        r"Req Time Stats\(rid=logged, input len=2507, cached len=\d+, output len=8\): queue_duration=[\d.]+ms, "
        r"prefill_duration=[\d.]+ms, decode_duration=[\d.]+ms",
        flagged.log,
    )


def test_lines_about_http_have_a_level_of_their_own(flagged: ServerProcess):
    flagged.get("/v1/models")
    assert "HTTP/1.1" not in flagged.log
    assert "Uvicorn running" not in flagged.log


def test_streamed_events_hold_what_is_new(flagged: ServerProcess):
    params = {"temperature": 0, "max_new_tokens": 12, "ignore_eos": True}
    whole = flagged.generate("hello", return_logprob=True, logprob_start_len=0, **params)
    found = events(flagged, **params)
    assert len(found) > 5
    assert "".join(event["text"] for event in found) == whole["text"]
    assert [token for event in found for token in event["output_ids"]] == whole["output_ids"]
    for side in ("input_token_logprobs", "output_token_logprobs"):
        parts = [entry[1] for event in found for entry in event["meta_info"][side]]
        assert parts == [entry[1] for entry in whole["meta_info"][side]]
    assert found[-1]["meta_info"]["completion_tokens"] == 12


def test_histograms_have_the_bounds_that_were_asked_for(flagged: ServerProcess):
    before = metric(flagged, "prompt_tokens_histogram")
    flagged.generate("y" * 100, max_new_tokens=3, ignore_eos=True)
    assert list(metric(flagged, "time_to_first_token_seconds")) == ["0.5", "100.0", "+Inf"]
    assert list(metric(flagged, "inter_token_latency_seconds")) == ["0.25", "+Inf"]
    assert list(metric(flagged, "e2e_request_latency_seconds")) == ["1.0", "2.0", "3.0", "+Inf"]
    after = metric(flagged, "prompt_tokens_histogram")
    assert (after["64.0"] - before["64.0"], after["128.0"] - before["128.0"]) == (0, 1)
    assert metric(flagged, "generation_tokens_histogram")["16.0"] >= 1


def test_a_prompt_that_is_too_long_loses_its_end(flagged: ServerProcess):
    assert flagged.generate("z" * 5000)["meta_info"]["prompt_tokens"] == CONTEXT - 1


def test_what_is_served_under_which_name(flagged: ServerProcess):
    assert "Load weight end. type=Qwen2ForCausalLM, dtype=torch.bfloat16" in flagged.log
    model = flagged.get("/v1/models").json()["data"][0]
    assert (model["id"], model["max_model_len"]) == ("named", CONTEXT)
    info = flagged.get("/get_model_info").json()
    assert (info["served_model_name"], info["preferred_sampling_params"]) == ("named", {"top_p": 0.5})


def test_white_space_in_json(flagged: ServerProcess):
    options = {"temperature": 2.0, "max_new_tokens": 100, "json_schema": SCHEMA}
    texts = [flagged.generate("a", sampling_seed=seed, **options)["text"] for seed in range(10)]
    assert all(re.fullmatch(r'{#?"a"#?:#?1#?}', text) for text in texts), texts
    assert any("#" in text for text in texts)


def test_sglangs_command_starts_this_server_with_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The tutorial's commands, with the flags that its own pages were made with and some that its readers add."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    process, port = launch_server_cmd(
        "python3 -m sglang.launch_server --model-path tiny-chat --host 127.0.0.1 --mem-fraction-static 0.1 --tp-size 1 "
        "--max-running-requests 200 --max-total-tokens 20480 --disable-cuda-graph --log-level warning --attention-backend fa3"
    )
    try:
        wait_for_server(f"http://localhost:{port}", timeout=120)
        info = httpx.get(f"http://localhost:{port}/get_server_info").json()
    finally:
        terminate_process(process)
    wanted = {
        "model_path": "tiny-chat", "host": "127.0.0.1", "port": port, "mem_fraction_static": 0.1, "tp_size": 1,
        "max_running_requests": 200, "max_total_tokens": 20480, "disable_cuda_graph": True, "log_level": "warning",
        "attention_backend": "fa3", "max_total_num_tokens": 20480, "status": "ready",
    }  # fmt: skip
    assert {name: info[name] for name in wanted} == wanted
    assert process.logs().count("WARNING") == process.logs().count("--attention-backend changes nothing here") == 1
    assert "kernel_engine.launch_server with the same flags" in capsys.readouterr().out
