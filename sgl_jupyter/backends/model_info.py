"""The chat template that a server's model brings along: told by the server, or read from the model's folder if that is here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sgl_jupyter.backends.base import ModelTemplate


def model_template(info: Mapping[str, Any]) -> ModelTemplate | None:
    """The template, of what a server answers to `GET /get_model_info`; None where there is none to be found.

    kernel_engine tells it. SGLang names a folder, which may be on another machine. SGLang puts the token that begins a text in
    front of every prompt by itself, so there the template is not to write it.
    """
    if source := info.get("chat_template"):
        return ModelTemplate(source, info.get("bos_token") or "", info.get("eos_token") or "")
    if "chat_template" in info:
        return None
    folder = Path(str(info.get("tokenizer_path") or info.get("model_path") or ""))
    try:
        return _read(folder) if folder.is_dir() else None
    except (OSError, ValueError):
        return None


def _read(folder: Path) -> ModelTemplate | None:
    """Raises OSError or ValueError where the folder's files cannot be read."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    file = folder / "chat_template.jinja"
    source = file.read_text() if file.is_file() else config.get("chat_template")
    if isinstance(source, list):  # several by their names
        source = next((each.get("template") for each in source if each.get("name") == "default"), None)
    eos_token = config.get("eos_token") or ""
    return ModelTemplate(source, "", _token(eos_token)) if isinstance(source, str) else None


def _token(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else str(token.get("content", ""))
