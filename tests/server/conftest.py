"""One server for all tests of its routes, and a model without weights for tests of other servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import Qwen2Config

from ..engine.support import byte_tokenizer
from .support import ServerProcess, running_server


@pytest.fixture(scope="package")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(
        folder, "--model-path", "tiny-chat", "--max-total-tokens", "20000", "--max-running-requests", "16"
    ) as server:
        yield server


@pytest.fixture
def server(shared_server: ServerProcess) -> Iterator[ServerProcess]:
    """The server, which must be idle and alive after each test, and log no traceback in it."""
    before = len(shared_server.log)
    yield shared_server
    shared_server.wait_until_idle()
    assert "Traceback" not in (new := shared_server.log[before:]), new[:4000]


@pytest.fixture(scope="package")
def config_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config and a tokenizer, no weights."""
    folder = tmp_path_factory.mktemp("config")
    Qwen2Config(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, architectures=["Qwen2ForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    byte_tokenizer().save_pretrained(folder)
    return folder
