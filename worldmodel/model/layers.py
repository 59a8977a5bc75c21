"""Layers that everything is built from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Linear, layer norm, SiLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.LayerNorm(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.linear(x)))


class MLP(nn.Sequential):
    """``layers`` blocks of ``width`` and a linear output; ``zero`` starts the output at zero (DreamerV3's critic)."""

    def __init__(self, inputs: int, outputs: int, width: int, layers: int, zero: bool = False) -> None:
        last = nn.Linear(width if layers else inputs, outputs)
        if zero:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        super().__init__(*[Block(inputs if i == 0 else width, width) for i in range(layers)], last)

    def forward(self, x: Tensor) -> Tensor:
        # flat: a slice of a sequence would otherwise go through a slow batched product
        return super().forward(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


class GRU(nn.Module):
    """A gated recurrent cell, layer-normalised, update gate biased to remember (Dreamer).

    ``forward(x, h)`` with x (*B, I) and h (*B, D) returns the next h (*B, D).
    """

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs + size, 3 * size, bias=False)
        self.norm = nn.LayerNorm(3 * size, eps=1e-3)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        gates = self.norm(self.linear(torch.cat([x, h], -1))).to(h.dtype)  # the memory keeps its precision
        reset, candidate, update = gates.chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(h, candidate, torch.sigmoid(update - 1))
