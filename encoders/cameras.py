"""Several cameras in one image. Legend: N images, V views of H x H pixels, E embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from encoders.base import Encoder


def views(image: Tensor, count: int) -> tuple[Tensor, ...]:
    """(N, 3, H, V * H) -> V = ``count`` views (N, 3, H, H)."""
    height, width = image.shape[-2:]
    if width != height * count:
        raise ValueError(f"an image of {height}x{width} is not {count} square views side by side")
    return image.split(height, -1)


class Cameras(Encoder):
    """Square views side by side, (N, 3, H, V * H), each through an encoder of its own; embeddings one after another.

    Args:
        encoders: one for each view, from left to right.
    """

    def __init__(self, encoders: list[Encoder]) -> None:
        super().__init__()
        if not encoders:
            raise ValueError("Cameras needs an encoder for each view, and got none")
        self.encoders = nn.ModuleList(encoders)
        self.embed_dim = sum(encoder.embed_dim for encoder in encoders)

    def _parts(self) -> list[Encoder]:
        return list(self.encoders)  # type: ignore[arg-type]

    def _pairs(self, image: Tensor) -> list[tuple[Encoder, Tensor]]:
        return list(zip(self._parts(), views(image, len(self.encoders)), strict=True))

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([encoder(view) for encoder, view in self._pairs(image)], -1)  # (N, E)

    def fit_statistics(self, image: Tensor) -> None:
        for encoder, view in self._pairs(image):
            encoder.fit_statistics(view)

    def _shapes(self) -> list[tuple[int, ...]] | None:
        """Feature shapes of the views; None unless all are frozen."""
        found = [encoder.feature_shape for encoder in self._parts()]
        shapes = [shape for shape in found if shape is not None]
        return shapes if len(shapes) == len(found) else None

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        shapes = self._shapes()
        return None if shapes is None else (sum(math.prod(shape) for shape in shapes),)

    def features(self, image: Tensor) -> Tensor:
        """Those of all views, flat and one after another."""
        if self.feature_shape is None:
            return super().features(image)
        return torch.cat([encoder.features(view).flatten(1) for encoder, view in self._pairs(image)], 1)

    def adapt(self, features: Tensor) -> Tensor:
        shapes = self._shapes()
        if shapes is None:
            return super().adapt(features)
        flat = features.split([math.prod(shape) for shape in shapes], 1)
        parts = zip(self._parts(), flat, shapes, strict=True)
        return torch.cat([encoder.adapt(part.unflatten(1, shape)) for encoder, part, shape in parts], -1)

    def identity(self) -> str:
        if self.feature_shape is None:
            return super().identity()
        return "; ".join(encoder.identity() for encoder in self._parts())

    def pretrained_parameters(self) -> list[nn.Parameter]:
        return [parameter for encoder in self._parts() for parameter in encoder.pretrained_parameters()]
