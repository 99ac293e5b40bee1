"""The models that this machine has: those that come with the engine, and those that Hugging Face's tools have downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from .hardware import free_memory

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
ROOM = 1.2
"""A model needs this many times its weights: the rest is for the cache and for what is computed."""

Source = Literal["bundled", "downloaded"]


@dataclass(frozen=True, slots=True)
class AvailableModel:
    """A model that `launch` finds by `name`."""

    name: str
    source: Source
    size: int
    """Bytes of its weights."""
    fits: bool
    """Whether it fits into the memory that is free now: of the largest GPU, or without a GPU into main memory."""


def available_models() -> list[AvailableModel]:
    """The models that can be launched without a download, the bundled ones first."""
    room = free_memory() / ROOM

    def described(name: str, source: Source, folder: Path) -> AvailableModel:
        size = _size(folder)
        return AvailableModel(name, source, size, fits=size <= room)

    bundled = [described(name, "bundled", folder) for name, folder in _bundled()]
    return bundled + [described(name, "downloaded", folder) for name, folder in _downloaded()]


def bundled_names() -> list[str]:
    """The models that come with the engine, found without importing it."""
    return [name for name, _ in _bundled()]


def downloaded_names() -> list[str]:
    """The hub ids of the models that Hugging Face's tools have downloaded."""
    return [name for name, _ in _downloaded()]


def _bundled() -> list[tuple[str, Path]]:
    engine = find_spec("kernel_engine")
    folders = (engine.submodule_search_locations or []) if engine else []
    return sorted(
        (config.parent.name, config.parent) for f in folders for config in Path(f).glob("bundled/*/config.json")
    )


def _downloaded() -> list[tuple[str, Path]]:
    cache = hub_cache()
    return sorted((path.name.removeprefix("models--").replace("--", "/"), path) for path in cache.glob("models--*"))


def hub_cache() -> Path:
    """Where Hugging Face's tools keep what they download."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def local_folder(model: str) -> Path | None:
    """Where the files of a model are on this machine: the folder that it is, or what was downloaded of a hub id."""
    if Path(model).is_dir():
        return Path(model)
    return next((_newest(folder) for name, folder in _downloaded() if name == model), None)


def _newest(folder: Path) -> Path:
    """The newest snapshot in a folder of the hub's cache; any other folder itself."""
    snapshots = sorted(folder.glob("snapshots/*"), key=lambda path: path.stat().st_mtime)
    return snapshots[-1] if snapshots else folder


def _size(folder: Path) -> int:
    """Bytes of the weights in a model's folder."""
    return sum(path.stat().st_size for path in _weights(_newest(folder)))


def _weights(folder: Path) -> Iterator[Path]:
    """The files of the first kind that is there: some models come in several."""
    for pattern in WEIGHTS:
        if files := [path for path in folder.rglob(pattern) if path.exists()]:
            return iter(files)
    return iter(())
