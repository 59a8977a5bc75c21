"""What an encoder is. Legend: N images, H x W pixels, E embedding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import reduce

import torch
from einops import rearrange
from torch import Tensor, nn


class Pixels(nn.Module):
    """Raw images to what a network likes: area-resized to ``size``, each pixel whitened by statistics of the data.

    Whitening removes what never changes (the background), which otherwise fills the loss. Before statistics are set,
    the mean is mid-grey and the deviation a quarter of the range.

    Args:
        size: side of the output in pixels; must divide the input's side.
        floor: smallest deviation a pixel is divided by, in units of the full range.
    """

    mean: Tensor
    std: Tensor
    columns: Tensor

    def __init__(self, size: int, floor: float = 0.05) -> None:
        super().__init__()
        self.size, self.floor = size, floor
        self.register_buffer("mean", torch.full((3, size, size), 0.5))
        self.register_buffer("std", torch.full((3, size, size), 0.25))
        self.register_buffer("columns", torch.eye(size), persistent=False)

    def resize(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, 3, size, size) float in [0, 1]."""
        side = image.shape[-1]
        if image.shape[-2] != side or side % self.size:
            raise ValueError(f"images of {image.shape[-2]}x{side} do not divide into {self.size}x{self.size}")
        if side == self.size:
            return image.to(self.mean.dtype).mul_(1 / 255)
        factor = side // self.size
        if factor == 2 and side % 4 == 0 and not torch.compiler.is_exporting():  # ONNX knows no bytes of a word
            return _halve(image)
        # the mean over each square as a sum of rows and a product: twice as fast as a pooling on a CPU
        rows = rearrange(image.to(self.mean.dtype), "n c (h a) w -> (n c h) a w", a=factor)
        columns = self.columns.repeat_interleave(factor, 0).mul_(1 / (255 * factor**2))
        with torch.autocast(image.device.type, enabled=False):
            small = reduce(torch.add, rows.unbind(1)) @ columns
        return rearrange(small, "(n c h) w -> n c h w", c=3, h=self.size)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> whitened (N, 3, size, size)."""
        return (self.resize(image) - self.mean) / self.std

    def unwhiten(self, white: Tensor) -> Tensor:
        """Whitened (N, 3, size, size) -> uint8 images of the same size."""
        return (white * self.std + self.mean).mul(255).round().clamp(0, 255).to(torch.uint8)

    @torch.no_grad()
    def fit_statistics(self, image: Tensor) -> None:
        """Take the statistics of ``image`` (N, 3, H, W) uint8."""
        small = self.resize(image)
        self.mean.copy_(small.mean(0))
        self.std.copy_(small.std(0, unbiased=False).clamp_min(self.floor))


def _halve(image: Tensor) -> Tensor:
    """Mean of each 2 x 2 square, (N, 3, H, W) uint8 -> (N, 3, H / 2, W / 2) float in [0, 1].

    Two sums of two bytes are made at once in each 32-bit word, so that only a quarter of the numbers become floats:
    five times as fast.
    """
    words = image.contiguous().view(torch.int32)  # (N, 3, H, W / 4)
    pairs = (words & 0x00FF00FF) + ((words >> 8) & 0x00FF00FF)  # sums of neighbours in a row, 16 bits each
    squares = pairs[:, :, 0::2] + pairs[:, :, 1::2]  # (N, 3, H / 2, W / 4)
    return squares.view(torch.int16).float().mul_(1 / (255 * 4))


class Encoder(nn.Module, ABC):
    """Images to embeddings. Resizing, normalising and freezing live in here.

    An encoder with a frozen part splits in two: ``forward(image) == adapt(features(image))``, and since ``features``
    never change they may be stored with the frame.
    """

    embed_dim: int

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, embed_dim)."""

    def fit_statistics(self, image: Tensor) -> None:
        """Take statistics of the data, (N, 3, H, W) uint8, if the encoder wants any."""

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        """Shape of one image's ``features``; None where nothing that could be stored is frozen."""
        return None

    def features(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, *feature_shape) float32, without gradient.

        The same to the last bit whatever else is in the batch.

        Raises:
            ValueError: the encoder has no frozen part.
        """
        raise ValueError(f"{type(self).__name__} has no frozen features to store")

    def adapt(self, features: Tensor) -> Tensor:
        """(N, *feature_shape) -> (N, embed_dim), the part that learns."""
        raise ValueError(f"{type(self).__name__} has no frozen features to adapt")

    def identity(self) -> str:
        """Names the frozen part and a digest of its weights: stored features of another identity are of no use."""
        raise ValueError(f"{type(self).__name__} has no frozen features to store")

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Pretrained weights that are tuned. They learn at a rate of their own."""
        return []
