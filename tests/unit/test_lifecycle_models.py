"""Which models are here, how large they are, and whether they fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from sgl_jupyter.lifecycle import AvailableModel, available_models, models


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hugging Face's cache, empty, on a machine with 1.2 kB of free memory."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "free_memory", lambda: 1200)
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    return tmp_path


def add(cache: Path, repository: str, **sizes: int) -> None:
    snapshot = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name, size in sizes.items():
        blob = cache / f"{repository.replace('/', '-')}-{name}"
        blob.write_bytes(b"x" * size)
        (snapshot / name.replace("_", ".")).symlink_to(blob)


def test_downloaded_models_with_their_weights_in_one_format(cache: Path) -> None:
    add(cache, "org/one", model1_safetensors=600, model2_safetensors=400, pytorch_bin=5000, readme_md=70)
    add(cache, "org/two", pytorch_bin=1001)
    add(cache, "gpt2", model_safetensors=10)
    assert available_models() == [
        AvailableModel("gpt2", "downloaded", 10, fits=True),
        AvailableModel("org/one", "downloaded", 1000, fits=True),
        AvailableModel("org/two", "downloaded", 1001, fits=False),
    ]
    assert models.downloaded_names() == ["gpt2", "org/one", "org/two"]


def test_a_download_that_was_broken_off_has_what_is_there(cache: Path) -> None:
    add(cache, "org/empty")
    (cache / "models--org--none").mkdir()
    (cache / "models--org--empty/snapshots/abc/model.safetensors").symlink_to(cache / "gone")
    assert [(model.name, model.size) for model in available_models()] == [("org/empty", 0), ("org/none", 0)]


def test_the_bundled_models_come_first_and_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    found = {model.name: model for model in available_models()}
    assert "tiny-chat" in models.bundled_names()
    assert found["tiny-chat"].source == "bundled"
    assert found["tiny-chat"].size > 1_000_000
    assert found["tiny-chat"].fits
