"""A server whose weights are quantized and that has an adapter, as clients see it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .support import ServerProcess, running_server

HIDDEN, PROMPT = 256, "The capital of France is"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(0)
    layer = "base_model.model.model.layers.3.self_attn.o_proj"
    tensors = {f"{layer}.lora_A.weight": torch.randn(4, HIDDEN), f"{layer}.lora_B.weight": torch.randn(HIDDEN, 4)}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4}))
    flags = ("--model-path", "tiny-chat", "--quantization", "int8", "--lora-paths", f"wild={folder}")
    with running_server(Path(tmp_path_factory.mktemp("server")), *flags) as running:
        yield running


def texts(server: ServerProcess, **body: object) -> list[str]:
    params = {"temperature": 0, "max_new_tokens": 8}
    answers = server.post("/generate", sampling_params=params, **body).json()
    return [answer["text"] for answer in answers]


def test_each_prompt_is_answered_with_its_own_adapter(server: ServerProcess):
    plain, wild = texts(server, text=[PROMPT, PROMPT], lora_path=[None, "wild"])
    assert plain.startswith(" Paris")
    assert wild != plain
    assert texts(server, text=[PROMPT, PROMPT], lora_path="wild") == [wild, wild]
    assert texts(server, text=[PROMPT]) == [plain]


def test_openais_routes_name_the_adapter_as_a_model(server: ServerProcess):
    (wild,) = texts(server, text=[PROMPT], lora_path="wild")
    for name in ("wild", "tiny-chat:wild"):
        body = {"model": name, "prompt": PROMPT, "temperature": 0, "max_tokens": 8}
        assert server.post("/v1/completions", **body).json()["choices"][0]["text"] == wild
    assert [model["id"] for model in server.get("/v1/models").json()["data"]] == ["tiny-chat", "wild"]


def test_an_unknown_adapter_is_a_bad_request(server: ServerProcess):
    response = server.post("/generate", text=PROMPT, lora_path="tame")
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "lora_path 'tame' is not known: the adapters here are wild."


def test_the_log_says_what_quantization_saved(server: ServerProcess):
    assert "Quantized to int8" in server.log
