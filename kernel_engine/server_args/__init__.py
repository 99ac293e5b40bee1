"""The engine's settings, under SGLang's names, and the command line that sets them.

The fields of `ServerArgs` are the one table of flags: the command line, `--help`, the checks and docs/server-arguments.md are
made from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import LoadError
from .flag import Status, flag_of, spelling
from .how_it_answers import ConstraintFlags, HttpFlags, LogFlags, OpenAIFlags
from .how_it_runs import ComputationFlags, MemoryFlags
from .several import SeveralFlags
from .what_runs import LoraFlags, ModelFlags, QuantizationFlags, SpeculationFlags


@dataclass(frozen=True, kw_only=True)
class ServerArgs(  # a dataclass has its last base's fields first
    SeveralFlags,
    SpeculationFlags,
    QuantizationFlags,
    LoraFlags,
    ConstraintFlags,
    LogFlags,
    OpenAIFlags,
    HttpFlags,
    ComputationFlags,
    MemoryFlags,
    ModelFlags,
):
    """What `python -m kernel_engine.launch_server` takes. None means: decided from the model and the machine.

    Raises `LoadError`, with a sentence that names the flag, for a value that cannot be.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            flag_of(each).check(spelling(each.name), getattr(self, each.name), each.default)
        self.model_overrides()
        self.preferred_sampling()
        if self.constrained_json_whitespace_pattern and self.grammar_backend != "llguidance":
            raise LoadError("--constrained-json-whitespace-pattern needs --grammar-backend llguidance.")
        if self.api_key and self.api_key_file:
            raise LoadError("--api-key and --api-key-file cannot both be had; give one of them.")

    @property
    def model_name(self) -> str:
        return self.served_model_name or self.model_path

    @property
    def http_level(self) -> str:
        return self.log_level_http or self.log_level

    def model_overrides(self) -> dict[str, Any]:
        """`json_model_override_args` as a dict."""
        return _json_object("json_model_override_args", self.json_model_override_args)

    def preferred_sampling(self) -> dict[str, Any] | None:
        """`preferred_sampling_params` as a dict."""
        text = self.preferred_sampling_params
        return None if text is None else _json_object("preferred_sampling_params", text)

    def warmup_names(self) -> list[str]:
        return self.warmups.split(",") if self.warmups else []

    def secret(self) -> str | None:
        """The API key, wherever it was given. Raises `LoadError` rather than let everybody in for want of one."""
        if self.api_key_file is None:
            return self.api_key
        try:
            key = Path(self.api_key_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise LoadError(f"--api-key-file {self.api_key_file!r} cannot be read: {error}.") from None
        if not key:
            raise LoadError(f"--api-key-file {self.api_key_file!r} is empty.")
        return key

    def media_folder(self) -> Path | None:
        """The folder of `allowed_local_media_path`. Raises `LoadError` if there is none."""
        if self.allowed_local_media_path is None:
            return None
        folder = Path(self.allowed_local_media_path).expanduser()
        if not folder.is_dir():
            raise LoadError(f"--allowed-local-media-path {self.allowed_local_media_path!r} is not a folder.")
        return folder

    def public(self) -> dict[str, Any]:
        """Every setting but secrets, for logs and `/server_info`."""
        settings = {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("api_key")}
        names = {"tokenizer_path": self.tokenizer_path or self.model_path, "served_model_name": self.model_name}
        return settings | names

    def without_effect(self) -> Iterator[str]:
        """A sentence for each flag that was set and changes nothing."""
        for each in fields(self):
            flag, name = flag_of(each), spelling(each.name)
            if getattr(self, each.name) == each.default:
                continue
            if flag.status == "noted":
                yield f"{name} changes nothing here: {flag.why}"
            elif flag.needs and not getattr(self, flag.needs):
                yield f"{name} changes nothing without {spelling(flag.needs)}."


def groups() -> Iterator[tuple[str, list[Field[Any]]]]:
    """The flags that have their effect, by title."""
    for base in reversed(ServerArgs.__mro__[1:-1]):
        own = {each.name for each in fields(base)}  # pyright: ignore[reportArgumentType]
        if flags := [each for each in of_status("effective") if each.name in own]:
            yield str(base.__doc__), flags


def of_status(status: Status) -> list[Field[Any]]:
    return [each for each in fields(ServerArgs) if flag_of(each).status == status]


def _json_object(field_name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise LoadError(f"{spelling(field_name)} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise LoadError(f"{spelling(field_name)} must be a JSON object.")
    return value


def parse_args(arguments: list[str]) -> ServerArgs:
    """Read a command line; exits with a usage message if it is wrong."""
    from .command_line import parse

    return parse(arguments)
