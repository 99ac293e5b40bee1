"""LoRA adapters: small additions to a model's linear layers, each request with its own or none (arXiv 2106.09685).

Invariant: a token's hidden states depend on its own request's adapter alone, whatever else is in the batch.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import LoadError, RequestError
from .quantize import QuantizedLinear
from .source import bring, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .plan import Segment
    from .server_args import ServerArgs

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PART = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
REFUSED = {
    "use_dora": "it scales the weights' columns (DoRA)",
    "use_qalora": "it pools its inputs (QA-LoRA)",
    "lora_bias": "it adds biases",
    "modules_to_save": "it replaces whole modules (modules_to_save)",
    "trainable_token_indices": "it changes embeddings (trainable_token_indices)",
    "target_parameters": "it adapts weights that are no linear layers (target_parameters)",
    "layer_replication": "it repeats layers (layer_replication)",
    "alora_invocation_tokens": "it begins in the middle of a text (aLoRA)",
}
"""Settings of PEFT that are not computed here."""
CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""Ways to start training that subtract the adapter from the base model, which then is another one."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an adapter adds, by the name of the linear layer: `down` [rank, in] and `up` [out, rank], scaled."""

    name: str
    layers: Mapping[str, tuple[Tensor, Tensor]]


class Adapters:
    """The adapters of a model, numbered from 1; 0 is the model without one.

    `groups` are the adapters at work in the step under way, each with its tokens' rows in the batch.
    """

    def __init__(self, names: Sequence[str] = ()):
        self.names = list(names)
        self.groups: list[tuple[int, Tensor]] = []

    def number(self, name: str | None) -> int:
        """Raises `RequestError` for a name that no adapter has."""
        if name is None:
            return 0
        if name not in self.names:
            known = f"the adapters here are {', '.join(self.names)}" if self.names else "this server has no adapters"
            raise RequestError(f"lora_path {name!r} is not known: {known}.")
        return self.names.index(name) + 1

    def begin(self, segments: Sequence[Segment], device: torch.device) -> None:
        """Note whose tokens the next step computes: those of `segments`, in this order."""
        rows: defaultdict[int, list[np.ndarray]] = defaultdict(list)
        end = 0
        for segment in segments:
            begin, end = end, end + segment.count
            if segment.sequence.adapter:
                rows[segment.sequence.adapter].append(np.arange(begin, end))
        self.groups = [(number, torch.from_numpy(np.concatenate(own)).to(device)) for number, own in rows.items()]


class LoraLinear(nn.Module):
    """A linear layer, and what the adapters add to it: to each token what its own adapter says."""

    def __init__(self, base: nn.Module, adapters: Adapters):
        super().__init__()
        self.base, self.added = base, nn.ModuleDict()
        self._adapters = adapters

    def add(self, number: int, down: Tensor, up: Tensor) -> None:
        self.added[str(number)] = nn.Sequential(_linear(down), _linear(up))

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs` [..., in] -> [..., out]; the leading axes together are the batch's tokens."""
        outputs = self.base(inputs)
        for number, rows in self._adapters.groups:
            if (key := str(number)) in self.added:
                own = inputs.reshape(-1, inputs.shape[-1]).index_select(0, rows)
                outputs.view(-1, outputs.shape[-1]).index_add_(0, rows, self.added[key](own))
        return outputs


def read_adapters(args: ServerArgs) -> list[Adapter]:
    """The adapters of `args.lora_paths`, `NAME=PATH` or `PATH` each. Raises `LoadError` for one that cannot be used."""
    named = [_named(entry) for entry in args.lora_paths or ()]
    names = [name for name, _ in named]
    if twice := {name for name in names if names.count(name) > 1}:
        raise LoadError(f"--lora-paths gives the name {min(twice)!r} twice. Write NAME=PATH for each.")
    return [read_adapter(name, _folder(path, args)) for name, path in named]


def attach(module: PreTrainedModel, adapters: Sequence[Adapter]) -> Adapters:
    """Put `adapters` into `module`, in place. Its linear layers are plain or quantized, and not fused yet.

    Raises `LoadError` for an adapter that was made for another model.
    """
    attached = Adapters([adapter.name for adapter in adapters])
    for number, adapter in enumerate(adapters, start=1):
        for name, (down, up) in adapter.layers.items():
            base = _base(module, adapter, name)
            if (down.shape[1], up.shape[0]) != (base.in_features, base.out_features):
                raise LoadError(
                    f"the adapter {adapter.name!r} was made for another model: its {name} is {down.shape[1]} by "
                    f"{up.shape[0]}, the model's {base.in_features} by {base.out_features}."
                )
            if not isinstance(layer := module.get_submodule(name), LoraLinear):
                layer = LoraLinear(base, attached)
                parent, _, attribute = name.rpartition(".")
                setattr(module.get_submodule(parent), attribute, layer)
            layer.add(number, down.to(module.device, module.dtype), up.to(module.device, module.dtype))
    return attached


def read_adapter(name: str, folder: Path) -> Adapter:
    """The adapter in a folder as PEFT saves it. Raises `LoadError` for one that this engine would compute wrong."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text())
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise LoadError(f"no adapter in {str(folder)!r}: there is no {Path(error.filename or WEIGHTS).name}.") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise LoadError(f"the adapter in {str(folder)!r} cannot be read: {first_line(error)}") from None
    _check_config(name, config)
    return Adapter(name, _layers(name, config, tensors))


def _named(entry: str) -> tuple[str, str]:
    name, given, path = entry.partition("=")
    name, path = (name, path) if given else (Path(entry).name, entry)
    if not name or not path:
        raise LoadError(f"--lora-paths takes NAME=PATH or PATH, got {entry!r}.")
    return name, path


def _folder(path: str, args: ServerArgs) -> Path:
    if path.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
        raise LoadError(f"--lora-paths: {path!r} is not a folder.")
    return bring(str(Path(path).expanduser()), replace(args, revision=None, trust_remote_code=False), weights=True)


def _check_config(name: str, config: Any) -> None:
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise LoadError(f"the adapter {name!r} is not supported: it is not a LoRA adapter (peft_type in {CONFIG}).")
    reasons = [reason for setting, reason in REFUSED.items() if config.get(setting)]
    if config.get("bias", "none") != "none":
        reasons.append(f"it adds biases (bias: {config['bias']})")
    if str(config.get("init_lora_weights")).startswith(CHANGES_BASE):
        start = config["init_lora_weights"]
        reasons.append(f"it goes with changed base weights ({start}); let PEFT convert it to plain LoRA when saving")
    if reasons:
        raise LoadError(f"the adapter {name!r} is not supported: {reasons[0]}.")


def _layers(name: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The pairs among `tensors`, by layer. Which layers an adapter has is told by its tensors, not by `target_modules`."""
    sides: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        part = PART.fullmatch(key.removeprefix(PREFIX))
        if part is None:
            raise LoadError(f"the adapter {name!r} is not supported: it has {key}, which is no part of a linear layer.")
        sides[part["layer"]][part["side"]] = tensor
    layers = {}
    for layer, pair in sides.items():
        if set(pair) != {"A", "B"} or pair["A"].dim() != 2 or pair["A"].shape[0] != pair["B"].shape[-1]:
            raise LoadError(
                f"the adapter {name!r} is damaged: {layer} lacks one of its two matrices, or they differ in rank."
            )
        layers[layer] = pair["A"], pair["B"].float() * _scale(config, layer, rank=pair["A"].shape[0])
    if not layers:
        raise LoadError(f"the adapter {name!r} is empty.")
    return layers


def _scale(config: dict[str, Any], layer: str, rank: int) -> float:
    patterns = config.get("alpha_pattern") or {}
    matching = (alpha for key, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", layer))
    alpha = next(matching, config.get("lora_alpha", 8))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _linear(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear


def _base(module: PreTrainedModel, adapter: Adapter, name: str) -> nn.Linear | QuantizedLinear:
    """The layer that `adapter` calls `name`, without what other adapters add to it."""
    try:
        layer = module.get_submodule(name)
    except AttributeError:
        raise LoadError(f"the adapter {adapter.name!r} was made for another model: this one has no {name}.") from None
    if layer is module.get_output_embeddings():
        raise LoadError(f"the adapter {adapter.name!r} is not supported: it adapts {name}, which makes the logits.")
    base = layer.base if isinstance(layer, LoraLinear) else layer
    if not isinstance(base, nn.Linear | QuantizedLinear):
        raise LoadError(
            f"the adapter {adapter.name!r} is not supported: {name} is a {type(base).__name__}, not a Linear."
        )
    return base
