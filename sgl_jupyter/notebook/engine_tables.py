"""Engines, models and settings as tables of plain text, for `%sgl ls`, `%sgl models` and `%sgl config`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import TYPE_CHECKING

from sgl_jupyter.lang.config import global_config
from sgl_jupyter.notebook.text import table

if TYPE_CHECKING:
    from traitlets.config import Configurable

    from sgl_jupyter.lifecycle import AvailableModel, EngineHandle, RemoteEngine

ENVIRONMENT = ("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE")
"""Variables that decide which models and devices are found."""


def engine_table(engines: Sequence[EngineHandle | RemoteEngine]) -> str:
    """One line an engine; empty where there is none. The engines are asked all at once."""
    if not engines:
        return ""
    head = ["engine", "model", "state", "device", "memory", "requests", "tokens/s", "pid", "used by"]
    with ThreadPoolExecutor(len(engines)) as pool:
        return table(head, list(pool.map(_engine_row, engines)))


def model_table(models: Sequence[AvailableModel]) -> str:
    """One line a model; empty where there is none."""
    rows = [(model.name, model.source, _bytes(model.size), "yes" if model.fits else "no") for model in models]
    return table(["model", "source", "weights", "fits"], rows) if rows else ""


def settings_table(magics: Configurable) -> str:
    """Each setting with its value, and what has set it."""
    kind = type(magics).__name__
    rows = []
    for name, trait in sorted(magics.class_own_traits(config=True).items()):
        value = getattr(magics, name)
        rows.append((f"{kind}.{name}", "default" if value == trait.default_value else f"%config {kind}", repr(value)))
    for each in fields(global_config):
        value = getattr(global_config, each.name)
        rows.append((f"global_config.{each.name}", "default" if value == each.default else "program", repr(value)))
    for name in ENVIRONMENT:
        rows.append((name, "environment" if name in os.environ else "not set", os.environ.get(name, "")))
    return table(["setting", "set by", "value"], rows)


def _engine_row(engine: EngineHandle | RemoteEngine) -> tuple[str, ...]:
    from sgl_jupyter.lifecycle import EngineHandle, load_of

    load = load_of(engine)
    requests = "" if load.requests is None else str(load.requests)
    speed = "" if load.tokens_per_second is None else f"{load.tokens_per_second:.0f}"
    memory = _bytes(load.memory) if load.memory else ""
    device = {None: "", True: "GPU", False: "CPU"}[load.on_gpu]
    is_local = isinstance(engine, EngineHandle)
    pid, users = (str(engine.pid), engine.used_by) if is_local else ("", engine.url)
    return engine.name, engine.model, engine.state, device, memory, requests, speed, pid, users


def _bytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
