"""What of a backbone is read, and the small adapter that is trained.

Legend: N images, C channels, h x w places of the feature map, E embedding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from einops import rearrange
from torch import Tensor, nn

from encoders.backbone import Seen
from encoders.ranges import Width


class Shape(NamedTuple):
    """Of what a backbone gives: channels C, h, w, and whether there is a class token."""

    channels: int
    height: int
    width: int
    token: bool


class Readout(nn.Module, ABC):
    """``place`` says what is read, (N, *feature_shape); the module itself adapts it, (N, embed_dim).

    The adapter begins with a layer norm, so that the scale of the backbone does not matter.
    """

    feature_shape: tuple[int, ...]
    embed_dim: int

    @abstractmethod
    def place(self, seen: Seen) -> Tensor:
        """Map (N, C, h, w) and token (N, C) -> (N, *feature_shape)."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """(N, *feature_shape) -> (N, embed_dim)."""


class Pooled(Readout):
    """The mean over all places. It says what is there, and hardly where.

    Args:
        shape: of what the backbone gives.
        width: size E of the embedding.
    """

    def __init__(self, shape: Shape, width: Width = 256) -> None:
        super().__init__()
        self.feature_shape, self.embed_dim = (shape.channels,), width
        self.net = nn.Sequential(nn.LayerNorm(shape.channels), nn.Linear(shape.channels, width))

    def place(self, seen: Seen) -> Tensor:
        return seen.map.mean((2, 3))  # (N, C)

    def forward(self, features: Tensor) -> Tensor:
        return self.net(features)  # (N, E)


class ClassToken(Pooled):
    """The class token of a vision transformer.

    Args:
        shape: of what the backbone gives.
        width: size E of the embedding.
    """

    def __init__(self, shape: Shape, width: Width = 256) -> None:
        if not shape.token:
            raise ValueError("this backbone has no class token: read it with Pooled or Spatial")
        super().__init__(shape, width)

    def place(self, seen: Seen) -> Tensor:
        assert seen.token is not None
        return seen.token  # (N, C)


class Spatial(Readout):
    """Every place of the map (of a transformer: every patch), projected to a few channels. Keeps where things are.

    Args:
        shape: of what the backbone gives.
        channels: channels that are left of each place; E is channels * h * w.
    """

    def __init__(self, shape: Shape, channels: Width = 16) -> None:
        super().__init__()
        self.feature_shape = (shape.channels, shape.height, shape.width)
        self.embed_dim = channels * shape.height * shape.width
        self.net = nn.Sequential(nn.LayerNorm(shape.channels), nn.Linear(shape.channels, channels))

    def place(self, seen: Seen) -> Tensor:
        return seen.map  # (N, C, h, w)

    def forward(self, features: Tensor) -> Tensor:
        places = rearrange(features, "n c h w -> n h w c")
        return rearrange(self.net(places), "n h w c -> n (h w c)")  # (N, E)
