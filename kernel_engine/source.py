"""Where a model comes from: a folder, a bundled model's name, or a hub id; found out before anything heavy is imported."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from .errors import LoadError

BUNDLED = Path(__file__).parent / "bundled"
CONFIG = "config.json"
HUB_SECONDS = 5.0


def resolve_model_path(name: str) -> str:
    """A folder as it is, a bundled model's folder by its name, anything else as a hub id."""
    bundled = BUNDLED / name
    if not Path(name).exists() and "/" not in name and (bundled / CONFIG).is_file():
        return str(bundled)
    return name


def is_bundled(path: str) -> bool:
    """Whether `path` is the folder of a model that ships with the package, which holds no code."""
    return Path(path).parent == BUNDLED


def check_available(path: str) -> None:
    """Raise `LoadError` if `path` is nowhere.

    A hub id that is not in the local cache fails at once when the hub is out of reach; the hub's own client retries for long.
    """
    if path.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
        raise LoadError(f"{path!r} is not a folder. {_choices()}")
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if Path(path).is_dir() or constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(path, CONFIG), str):
            return
        with socket.create_connection((urlsplit(constants.ENDPOINT).hostname or "", 443), timeout=HUB_SECONDS):
            return
    except HFValidationError as error:
        raise LoadError(f"{path!r} is neither a folder nor a hub id: {first_line(error)} {_choices()}") from None
    except OSError as error:
        reason = f"is not a folder, is not in the local cache, and the hub cannot be reached ({error})."
        raise LoadError(f"{path!r} {reason} {_choices()}") from None


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def _choices() -> str:
    bundled = sorted(p.name for p in BUNDLED.iterdir() if (p / CONFIG).is_file())
    return f"Give a folder in Hugging Face format, a hub id, or a bundled model: {', '.join(bundled)}."
