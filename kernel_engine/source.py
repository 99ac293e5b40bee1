"""Where a model comes from: a folder, a GGUF file, a bundled model's name, or a hub id; found out before anything heavy is
imported. Afterwards all of it lies on this machine.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import LoadError

if TYPE_CHECKING:
    from .server_args import ServerArgs

BUNDLED = Path(__file__).parent / "bundled"
CONFIG = "config.json"
HUB_SECONDS = 5.0
SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
WEIGHT_FILES = ("*.safetensors",)
UNUSED_FILES = ("*/*", "consolidated*")
"""Other forms of the same weights: in folders of their own, or in the trainers' own layout."""


def resolve_model_path(name: str) -> str:
    """A folder or file as it is, a bundled model's folder by its name, anything else as a hub id."""
    bundled = BUNDLED / name
    if not Path(name).exists() and "/" not in name and (bundled / CONFIG).is_file():
        return str(bundled)
    return str(Path(name).expanduser()) if name.startswith("~") else name


def is_bundled(path: str | Path) -> bool:
    """Whether `path` is the folder of a model that ships with the package, which holds no code."""
    return Path(path).parent == BUNDLED


def check_available(path: str) -> None:
    """Raise `LoadError` if `path` is nowhere.

    A hub id that is not in the local cache fails at once when the hub is out of reach; the hub's own client retries for long.
    """
    here = Path(path)
    if here.is_file() and here.suffix != ".gguf":
        raise LoadError(f"{path!r} is a file, and not a GGUF file. {_choices()}")
    if path.startswith((".", "/")) and not here.exists():
        raise LoadError(f"{path!r} is not a folder. {_choices()}")
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        if here.exists() or constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(path, CONFIG), str):
            return
        _reach_hub()
    except HFValidationError as error:
        raise LoadError(f"{path!r} is neither a folder nor a hub id: {first_line(error)}. {_choices()}") from None
    except OSError as error:
        reason = f"is not a folder, is not in the local cache, and the hub cannot be reached ({error})."
        raise LoadError(f"{path!r} {reason} {_choices()}") from None


def bring(path: str, args: ServerArgs, *, weights: bool) -> Path:
    """Where the files of a model are on this machine: downloaded first, or taken from the local cache, if `path` is a hub id.

    Without `weights` only the config and the tokenizer are downloaded. Raises `LoadError` if that cannot be done.
    """
    if Path(path).exists():
        return Path(path)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        _reach_hub()
        offline = constants.HF_HUB_OFFLINE
    except OSError:
        offline = True
    wanted = [*SMALL_FILES, *(WEIGHT_FILES if weights else ()), *(("*.py",) if args.trust_remote_code else ())]
    try:
        folder = snapshot_download(
            path,
            revision=args.revision,
            cache_dir=args.download_dir,
            local_files_only=offline,
            allow_patterns=wanted,
            ignore_patterns=list(UNUSED_FILES),
        )
    except LocalEntryNotFoundError:
        raise LoadError(f"{path!r} is not in the local cache, and the hub cannot be reached. {_choices()}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise LoadError(f"cannot download {path!r}: {first_line(error)}.") from error
    return Path(folder)


def _reach_hub() -> None:
    """Raise `OSError` if the hub does not answer; the hub's own client retries for long."""
    from huggingface_hub import constants

    socket.create_connection((urlsplit(constants.ENDPOINT).hostname or "", 443), timeout=HUB_SECONDS).close()


def first_line(error: BaseException) -> str:
    """The error's name and the first line of what it says, without a full stop."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0].rstrip('.')}"


def _choices() -> str:
    bundled = sorted(p.name for p in BUNDLED.iterdir() if (p / CONFIG).is_file())
    return f"Give a folder in Hugging Face format, a GGUF file, a hub id, or a bundled model: {', '.join(bundled)}."
