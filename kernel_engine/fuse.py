"""A loaded model's layers replaced by faster ones that compute the same: on a CPU, its bf16 linear layers.

Invariant: weights are shared with what was replaced, never copied, except for the packed layout, which is made only where
memory allows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .machine import free_memory

PACKED_SHARE = 0.25
"""Of the free memory, what the packed weights may take; they stand beside the plain ones, which one token reads faster."""
PACKED_ROWS = 128
"""Up to so many tokens the packed layout is faster. Beyond, arranging the plain weights costs nothing that is noticed."""
USUAL_ROWS = 16
"""The number of tokens that oneDNN is told to pack for; the layout is the same for 8 and 64."""


class CpuLinear(nn.Module):
    """A bf16 linear layer on a CPU.

    One token goes through PyTorch's own GEMV, which reads the weights as they lie, at 1.3 to 2 times oneDNN's rate. More go
    through oneDNN, which would arrange the weights anew in each call: for few tokens that costs more than the product, so
    it is done once, if `packed`.
    """

    def __init__(self, linear: nn.Linear, *, packed: bool):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight, USUAL_ROWS) if packed else None

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs` [..., in] -> [..., out]."""
        rows = inputs.numel() // inputs.shape[-1]
        if rows == 1:
            with _without_onednn():
                return F.linear(inputs, self.weight, self.bias)
        if self._packed is not None and rows <= PACKED_ROWS:
            return torch.ops.mkldnn._linear_pointwise(inputs, self._packed, self.bias, "none", [], "")
        return F.linear(inputs, self.weight, self.bias)


def fuse(module: nn.Module) -> None:
    """Replace, in place, what this device runs faster in another form. A module that has none of it stays as it is."""
    linears = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and _gains(child.weight)
    ]
    size = sum(linear.weight.numel() * linear.weight.element_size() for _, _, linear in linears)
    packed = size <= PACKED_SHARE * free_memory()
    for parent, name, linear in linears:
        setattr(parent, name, CpuLinear(linear, packed=packed))


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """PyTorch's own `flags` does the same and three other things, which together cost a small product's time."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def _gains(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available()
