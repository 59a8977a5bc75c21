"""Images as no training data showed them, to ask whether a model notices. Legend: N images, H x W pixels.

Every shift is a function of its arguments and the images alone: asked twice, it gives the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from einops import repeat
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from worldmodel.types import SequenceBatch


@dataclass(frozen=True)
class Shift(ABC):
    """A change of images. ``strength`` is in [0, 1], and 0 changes nothing.

    Raises:
        ValueError: the strength is out of its range.
    """

    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"the strength of a shift must be in [0, 1], got {self.strength}")

    def __call__(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> the same.

        Raises:
            ValueError: other shapes or types.
        """
        if image.dim() != 4 or image.shape[1] != 3 or image.dtype != torch.uint8:
            raise ValueError(f"a shift takes images (N, 3, H, W) uint8, got {tuple(image.shape)} {image.dtype}")
        return self.apply(image / 255).mul(255).round().clamp(0, 255).to(torch.uint8)

    @abstractmethod
    def apply(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape; what leaves the range is clipped."""


@dataclass(frozen=True)
class Colour(Shift):
    """Hues turned by ``strength`` of a full circle about the grey axis; a third moves red to green to blue."""

    strength: float = 1 / 3

    def apply(self, image: Tensor) -> Tensor:
        angle = 2 * math.pi * self.strength
        cross = image.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        turn = math.cos(angle) * torch.eye(3, device=image.device) + (1 - math.cos(angle)) / 3 + math.sin(angle) * cross
        return torch.einsum("ij,njhw->nihw", turn, image)


@dataclass(frozen=True)
class Brightness(Shift):
    """Every pixel brighter by ``strength`` of the range."""

    strength: float = 0.3

    def apply(self, image: Tensor) -> Tensor:
        return image + self.strength


@dataclass(frozen=True)
class PixelNoise(Shift):
    """Gaussian noise on every pixel and channel, its deviation ``strength`` of the range.

    Each call draws the same numbers from ``seed``.
    """

    strength: float = 0.15
    seed: int = 0

    def apply(self, image: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU, so that every device gets the same
        return image + self.strength * torch.randn(image.shape, generator=generator).to(image.device)


@dataclass(frozen=True)
class Occlusion(Shift):
    """A grey square in the middle, its side ``strength`` of the image's shorter side."""

    strength: float = 0.35

    def apply(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        side = round(self.strength * min(height, width))
        top, left = (height - side) // 2, (width - side) // 2
        covered = image.clone()
        covered[..., top : top + side, left : left + side] = 128 / 255
        return covered


@dataclass(frozen=True)
class Background(Shift):
    """A checkerboard where nothing moves, blended in with weight ``strength``.

    Background is every pixel within ``tolerance`` (of the range, in all channels) of its own median over the N images:
    give many at once, for with one image all of it is background. The squares are ``cell`` of the shorter side.
    """

    strength: float = 0.5
    tolerance: float = 0.06
    cell: float = 0.125

    def apply(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        cell = max(1, round(self.cell * min(height, width)))
        row, column = (torch.arange(n, device=image.device) // cell for n in (height, width))
        checker = ((row.unsqueeze(1) + column) % 2).to(image.dtype)  # (H, W)
        still = ((image - image.median(0).values).abs() <= self.tolerance).all(1, keepdim=True)
        return torch.where(still, image.lerp(checker.expand_as(image), self.strength), image)


@dataclass(frozen=True)
class Camera(Shift):
    """The picture enlarged by 1 + ``strength`` and moved right and down by ``strength`` of its sides.

    Its border is repeated where nothing was seen.
    """

    strength: float = 0.1

    def apply(self, image: Tensor) -> Tensor:
        # affine_grid asks where each pixel comes from: the inverse. Its coordinates span [-1, 1], two for a side
        zoom = 1 + self.strength
        theta = image.new_tensor([[1, 0, -2 * self.strength], [0, 1, -2 * self.strength]]) / zoom
        grid = F.affine_grid(repeat(theta, "i j -> n i j", n=len(image)), list(image.shape), align_corners=False)
        return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class Blur(Shift):
    """Gaussian blur, its deviation ``strength`` of the image's shorter side."""

    strength: float = 0.03

    def apply(self, image: Tensor) -> Tensor:
        side = min(image.shape[-2:])
        sigma = self.strength * side
        radius = min(math.ceil(3 * sigma), side - 1)  # the border is mirrored, and a mirror has no more
        return gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2) if radius else image


SHIFTS: dict[str, Shift] = {
    "colour": Colour(),
    "brightness": Brightness(),
    "noise": PixelNoise(),
    "occlusion": Occlusion(),
    "background": Background(),
    "camera": Camera(),
    "blur": Blur(),
}


def shifted(batch: SequenceBatch, shift: Shift) -> SequenceBatch:
    """The same sequences seen through a shift, which is given all B * T images at once.

    Stored features are left out: they are of the images before.
    """
    return batch._replace(image=shift(batch.image.flatten(0, 1)).view_as(batch.image), features=None)
