"""Weight-only quantization: linear layers that keep their weights in int8 or int4 and compute in bf16.

Invariant: only weights are rounded, once, when the model is loaded; the plain ones are let go. Activations are as exact as in
a bf16 model.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import LoadError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .server_args import ServerArgs

logger = logging.getLogger(__name__)

COMPUTED_IN = torch.bfloat16
FEW_ROWS = 8
"""Up to so many tokens a CPU's int8 kernel is faster than turning the weights back into bf16."""
MANY_ROWS = 256
"""From so many tokens on a CPU's int4 kernel takes longer than turning the weights back into bf16 and multiplying those."""
CPU_BLOCKS = {"AVX512": 64, "AVX2": 32}
"""Outputs that the int4 kernel packs together, by the instructions that PyTorch uses."""
INT8_BLOCK, INT4_BLOCK = 16, {"cpu": (16, 2), "cuda": (8, 32)}
"""What PyTorch's kernels ask for: inputs a multiple of 16, which the one for int8 does not check; outputs and inputs a multiple
of these."""
TINY = 1e-12
"""The least scale: of weights that are all the same."""
PART = 1 << 24
"""Weights that are rounded at a time; in between they take 4 bytes each."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How weights are kept: in int8 with one scale for each output, or in int4 with one, and an offset, for each `group` of
    weights of an output."""

    bits: int
    group: int = 0


SCHEMES = {
    "int8": Scheme(8),
    "int8wo": Scheme(8),
    "int4": Scheme(4, 32),
    "int4wo-32": Scheme(4, 32),
    "int4wo-64": Scheme(4, 64),
    "int4wo-128": Scheme(4, 128),
}
"""By the names of `--quantization` and of `--torchao-config`; either flag takes any of them."""


def scheme_of(args: ServerArgs) -> Scheme | None:
    """What the flags ask for. Raises `LoadError` for what cannot be had together."""
    asked = [name for name in (args.quantization, args.torchao_config) if name]
    schemes = {SCHEMES[name] for name in asked}
    if len(schemes) > 1:
        raise LoadError(f"{' and '.join(asked)} cannot both be had; give --quantization alone.")
    if schemes and args.dtype not in ("auto", "bfloat16"):
        raise LoadError(f"quantized weights are computed in bfloat16: leave out --dtype {args.dtype}.")
    return next(iter(schemes), None)


@torch.no_grad()
def quantize(module: PreTrainedModel, scheme: Scheme) -> None:
    """Round the linear layers of `module`, in place, but for the last, which makes the logits and often is the embedding too.

    A layer that has no kernel stays as it is, and the log says so. Raises `LoadError` for a model without linear layers.
    """
    places = [
        (parent, name)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child is not module.get_output_embeddings()
    ]
    if not places:
        raise LoadError(f"--quantization: {type(module).__name__} has no linear layers to quantize.")
    total, before, after, left = _bytes(module), 0, 0, {}
    for parent, name in places:
        linear = getattr(parent, name)
        layer = _quantized(linear, scheme)
        if layer is None:
            left[f"{linear.in_features} by {linear.out_features}"] = None
            continue
        before, after = before + _bytes(linear), after + _bytes(layer)
        setattr(parent, name, layer)
    if left:
        logger.warning("Layers of %s stay as they are: int%d has no kernel for them.", ", ".join(left), scheme.bits)
    sizes = (size / 1e9 for size in (before, total, after))
    logger.info("Quantized to int%d: %.3f of %.3f GB of weights, which take %.3f GB now.", scheme.bits, *sizes)


class QuantizedLinear(nn.Module):
    """What takes a linear layer's place; it differs in how its weights are kept and multiplied."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs` [..., in] -> [..., out]."""
        outputs = self.product(inputs.reshape(-1, inputs.shape[-1]))
        if self.bias is not None:
            outputs += self.bias
        return outputs.view(*inputs.shape[:-1], self.out_features)

    def product(self, rows: Tensor) -> Tensor:
        """`rows` [tokens, in] times the weights: [tokens, out]."""
        raise NotImplementedError


class Int8Linear(QuantizedLinear):
    """Weights in int8, `weight` [out, in] times `scale` [out].

    On a CPU few tokens go through PyTorch's kernel. Otherwise the weights are turned back, which costs little beside the
    product with many tokens; on a GPU it costs more than int8 saves, so that there only memory is won.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__(linear)
        weight, scale = _in_parts(linear.weight, to_int8)
        self.register_buffer("weight", torch.cat(weight))
        self.register_buffer("scale", torch.cat(scale))
        has_kernel = linear.weight.device.type == "cpu" and linear.in_features % INT8_BLOCK == 0
        self._few = FEW_ROWS if has_kernel else 0

    def product(self, rows: Tensor) -> Tensor:
        if len(rows) <= self._few:
            return torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale)
        return F.linear(rows, self.weight.to(rows.dtype)).mul_(self.scale)


class Int4Linear(QuantizedLinear):
    """Weights in int4, packed as PyTorch's kernel for the device wants them: (0..15 - 8) times a scale plus an offset, which
    are in `scales` [in / group, out, 2].

    For many tokens a CPU turns the weights back. Only there is the kernel's layout known:

        weight   | outputs 0..block | outputs block..2 block | ...       for each input half a block of bytes; byte i has
                                                                        output i in its low bits, i + block / 2 above
    """

    weight: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear, group: int):
        super().__init__(linear)
        weight, scales = _in_parts(linear.weight, lambda rows: to_int4(rows, group))
        self.register_buffer("weight", _packed(torch.cat(weight)))
        self.register_buffer("scales", torch.cat(scales, dim=1))
        self._group = group
        block = CPU_BLOCKS.get(torch.backends.cpu.get_cpu_capability()) if linear.weight.device.type == "cpu" else None
        self._block = block if block and linear.out_features % block == 0 else None

    def product(self, rows: Tensor) -> Tensor:
        if self._block and len(rows) >= MANY_ROWS:
            return F.linear(rows, self._plain(self._block))
        operators = torch.ops.aten
        on_cpu = rows.device.type == "cpu"
        multiply = operators._weight_int4pack_mm_for_cpu if on_cpu else operators._weight_int4pack_mm
        return multiply(rows, self.weight, self._group, self.scales)

    def _plain(self, block: int) -> Tensor:
        """The weights in bf16, [out, in]."""
        groups, outputs, _ = self.scales.shape
        halves = self.weight.view(-1, self.in_features, block // 2)
        scale, offset = self.scales.view(groups, -1, 1, block, 2).transpose(0, 1).unbind(-1)
        plain = torch.cat([halves & 15, halves >> 4], 2).to(COMPUTED_IN).view(-1, groups, self._group, block)
        plain = plain.sub_(8).mul_(scale).add_(offset)
        return plain.view(-1, self.in_features, block).mT.reshape(outputs, self.in_features)


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` [out, in] as int8 of the same shape, and its scale [out]: the greatest of an output becomes 127."""
    exact = weight.float()
    scale = (exact.abs().amax(1) / 127).clamp_min(TINY).to(COMPUTED_IN)
    return (exact / scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale


def to_int4(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """`weight` [out, in] as 0..15, uint8 of the same shape, and scales and offsets [in / group, out, 2]: the least of a group
    becomes 0, the greatest 15."""
    exact = weight.float().view(len(weight), -1, group)
    least, greatest = exact.aminmax(dim=2, keepdim=True)
    scale = ((greatest - least) / 15).clamp_min(TINY).to(COMPUTED_IN)
    offset = (least + 8 * scale).to(COMPUTED_IN)
    rounded = ((exact - offset.float()) / scale.float()).round_().add_(8).clamp_(0, 15)
    return rounded.to(torch.uint8).view(weight.shape), torch.cat([scale, offset], 2).transpose(0, 1).contiguous()


def _quantized(linear: nn.Linear, scheme: Scheme) -> QuantizedLinear | None:
    """What takes the place of `linear`; None if the kernel does not take its shape."""
    if scheme.bits == 8:
        return Int8Linear(linear)
    outputs, inputs = INT4_BLOCK[linear.weight.device.type]
    if linear.out_features % outputs or linear.in_features % max(inputs, scheme.group):
        return None
    return Int4Linear(linear, scheme.group)


def _in_parts(
    weight: Tensor, convert: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`convert` on some of the outputs at a time."""
    converted = [convert(rows) for rows in weight.split(max(1, PART // weight.shape[1]))]
    numbers, scales = zip(*converted, strict=True)
    return numbers, scales


def _packed(weight: Tensor) -> Tensor:
    """`weight` [out, in] of 0..15 in the layout of the device's kernel."""
    operators = torch.ops.aten
    if weight.device.type == "cpu":
        return operators._convert_weight_to_int4pack_for_cpu(weight.int(), 1)
    tiles = next(tiles for tiles in (8, 4, 2) if weight.shape[1] % (16 * tiles) == 0)
    return operators._convert_weight_to_int4pack(weight[:, ::2] << 4 | weight[:, 1::2], tiles)


def _bytes(layer: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in itertools.chain(layer.parameters(), layer.buffers()))
