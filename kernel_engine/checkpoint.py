"""Weights in safetensors files: which files there are, that they are whole, and how far they are read.

Invariant: nothing is read before it is asked for; on a CPU a tensor that is kept as it is stored is mapped, never copied.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import LoadError

logger = logging.getLogger(__name__)

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


class StoredTensor:
    """A tensor of a file, taken out by indexing it, as transformers' loader does; `taken` is called then."""

    def __init__(self, piece: Any, taken: Callable[[], None]):
        self._piece, self._taken = piece, taken

    def __getitem__(self, index: Any) -> Tensor:
        tensor = self._piece[index]
        self._taken()
        return tensor


class Progress:
    """Log lines in SGLang's form, one for each shard of which all tensors are taken. Used from several threads."""

    def __init__(self, shards: int):
        self._shards, self._done = shards, 0
        self._left: Counter[Path] = Counter()
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._log()

    def expect(self, shard: Path, tensors: int) -> None:
        self._left[shard] = tensors

    def taken(self, shard: Path) -> None:
        with self._lock:
            self._left[shard] -= 1
            if self._left[shard] == 0:
                self._done += 1
                self._log()

    def finish(self) -> None:
        """All is read that is needed; a shard may hold tensors that the model does not have."""
        if self._done < self._shards:
            self._done = self._shards
            self._log()

    def _log(self) -> None:
        from tqdm import tqdm

        logger.info(
            tqdm.format_meter(
                self._done,
                self._shards,
                time.monotonic() - self._began,
                prefix="Loading safetensors checkpoint shards",
                bar_format="{desc}: {percentage:3.0f}% Completed | {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]",
            )
        )


def open_checkpoint(folder: Path) -> tuple[dict[str, Any], Progress]:
    """The tensors of the checkpoint in `folder`, by name, to be taken by indexing, and the progress of that.

    Raises `LoadError` if a file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    shards = _shards(folder)
    progress = Progress(len(shards))
    tensors: dict[str, Any] = {}
    for shard in shards:
        try:
            file = safe_open(shard, framework="pt")
            names = list(file.keys())
            pieces = [file.get_slice(name) for name in names]
        except (SafetensorError, OSError) as error:
            raise LoadError(f"{shard} is damaged or only partly downloaded: {error}. Get it again.") from error
        progress.expect(shard, len(names))
        for name, piece in zip(names, pieces, strict=True):
            tensors[name] = StoredTensor(piece, lambda shard=shard: progress.taken(shard))
    return tensors, progress


def _shards(folder: Path) -> list[Path]:
    """The files that the weights are in; all of them exist."""
    index = folder / INDEX
    if not index.is_file():
        if (folder / SINGLE).is_file():
            return [folder / SINGLE]
        pickled = [path.name for path in sorted(folder.glob("*.bin"))[:1]]
        instead = (
            f"{pickled[0]} is not read, as pickles can run code: save the model as safetensors." if pickled else ""
        )
        raise LoadError(f"no weights in {str(folder)!r}: neither {SINGLE} nor {INDEX} is there. {instead}".strip())
    try:
        names: Iterable[str] = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(f"{index} is damaged: {error!r}. Get it again.") from error
    shards = [folder / name for name in names]
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise LoadError(
            f"{len(missing)} of the {len(shards)} files with the weights are missing in {str(folder)!r}: "
            f"{', '.join(missing[:4])}{', ...' if missing[4:] else ''}. Get them from where the others came from."
        )
    return shards
