"""The smallest encoder with a frozen part. Legend: N images, E embedding."""

from __future__ import annotations

import hashlib
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.base import Encoder

_BLOCK = 8  # images that are convolved at once, so that what else is in a batch changes nothing


class FrozenConv(Encoder):
    """A convolution with weights of its own, and a layer that learns. For images of 16 x 16.

    Args:
        weights: another number, other weights of the convolution.
        tuned: the convolution learns too.
    """

    looks: ClassVar[list[int]] = []  # how many images it was shown, each time

    def __init__(self, weights: int = 0, tuned: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 6, 4, 4, bias=False)
        generator = torch.Generator().manual_seed(weights)
        with torch.no_grad():
            self.backbone.weight.copy_(torch.randn(6, 3, 4, 4, generator=generator) / 5)
        self.backbone.requires_grad_(tuned)
        self.embed_dim, self.tuned = 16, tuned
        self.adapter = nn.Sequential(nn.Flatten(), nn.LayerNorm(96), nn.Linear(96, self.embed_dim))

    def forward(self, image: Tensor) -> Tensor:
        return self.adapt(self._convolved(image) if self.tuned else self.features(image))

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        return None if self.tuned else (6, 4, 4)

    @torch.no_grad()
    def features(self, image: Tensor) -> Tensor:
        self.looks.append(len(image))
        blocks = [F.pad(x, (0, 0, 0, 0, 0, 0, 0, _BLOCK - len(x))) for x in image.split(_BLOCK)]
        return torch.cat([self._convolved(x) for x in blocks])[: len(image)]  # (N, 6, 4, 4)

    def adapt(self, features: Tensor) -> Tensor:
        return self.adapter(features)

    def identity(self) -> str:
        weight = self.backbone.weight.detach().cpu().numpy()
        return f"FrozenConv-{hashlib.sha256(weight.tobytes()).hexdigest()[:16]}"

    def pretrained_parameters(self) -> list[nn.Parameter]:
        return list(self.backbone.parameters()) if self.tuned else []

    def _convolved(self, image: Tensor) -> Tensor:
        return torch.tanh(self.backbone(image / 255))
