"""Decoders p(o|s): a unit Gaussian on whitened pixels. Legend: N states, F feature, V views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from encoders.base import Pixels
from encoders.cameras import views
from encoders.ranges import Side, Width


class Decoder(nn.Module, ABC):
    """Features to images. ``pixels`` holds the target's size and statistics."""

    pixels: Pixels | CameraPixels

    @abstractmethod
    def forward(self, feature: Tensor) -> Tensor:
        """(N, F) -> whitened images (N, 3, size, size), of several cameras (N, 3, size, V * size)."""

    def fit_statistics(self, image: Tensor) -> None:
        """Take the statistics of ``image`` (N, 3, H, W) uint8."""
        self.pixels.fit_statistics(image)

    def loss(self, feature: Tensor, image: Tensor) -> Tensor:
        """Half the squared error in whitened pixels, (N, F) and (N, 3, H, W) uint8 -> (N,).

        Summed over pixels and scaled to 64 x 64 of them, so that the balance with the other losses does not
        depend on the resolution.
        """
        error = (self(feature) - self.pixels(image)).square().flatten(1).mean(1)
        return 0.5 * 3 * 64 * 64 * error

    def image(self, feature: Tensor) -> Tensor:
        """The mean image, (*B, F) -> (*B, 3, size, size) uint8."""
        flat = self.pixels.unwhiten(self(feature.flatten(0, -2)))
        return flat.unflatten(0, feature.shape[:-1])


class PatchDecoder(Decoder):
    """The patch encoder's mirror: each cell splits in four, then each of those paints its patch."""

    def __init__(
        self, feature_size: int, size: Side = 32, channels: tuple[Width, Width] = (48, 96), patch: Side = 4
    ) -> None:
        super().__init__()
        if size < 1 or size % (2 * patch):
            raise ValueError(f"size {size} must be a multiple of twice the patch {patch}")
        self.pixels = Pixels(size)
        side = size // (2 * patch)
        self.net = nn.Sequential(
            nn.Linear(feature_size, channels[1] * side**2),
            nn.SiLU(),
            Rearrange("n (h w c) -> (n h w) c", h=side, w=side),
            nn.Linear(channels[1], 4 * channels[0]),
            nn.SiLU(),
            Rearrange("(n h w) (p q c) -> (n h p w q) c", h=side, w=side, p=2, q=2),
            nn.Linear(channels[0], 3 * patch**2),
            Rearrange("(n h w) (c p q) -> n c (h p) (w q)", h=2 * side, w=2 * side, p=patch, q=patch),
        )

    def forward(self, feature: Tensor) -> Tensor:
        return self.net(feature)


class ConvDecoder(Decoder):
    """The classic net of strided transposed 4x4 convolutions up from 4x4 (Dreamer)."""

    def __init__(self, feature_size: int, size: Side = 64, depth: Width = 32) -> None:
        super().__init__()
        layers = size.bit_length() - 3
        if layers < 1 or size != 4 << layers:
            raise ValueError(f"size must be a power of two of at least 8, got {size}")
        self.pixels = Pixels(size)
        channels = depth * 2 ** (layers - 1)
        blocks: list[nn.Module] = [
            nn.Linear(feature_size, 16 * channels),
            Rearrange("n (c h w) -> n c h w", h=4, w=4),
        ]
        for _ in range(layers - 1):
            blocks += [
                nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False),
                nn.GroupNorm(1, channels // 2),
                nn.SiLU(),
            ]
            channels //= 2
        self.net = nn.Sequential(*blocks, nn.ConvTranspose2d(channels, 3, 4, 2, 1))

    def forward(self, feature: Tensor) -> Tensor:
        return self.net(feature)


class CameraPixels:
    """``Pixels`` of several cameras, each with its own, for images (N, 3, H, V * H) of square views side by side."""

    def __init__(self, each: list[Pixels]) -> None:
        self.each, self.size = each, each[0].size

    @property
    def mean(self) -> Tensor:
        return torch.cat([pixels.mean for pixels in self.each], -1)  # (3, size, V * size)

    @property
    def std(self) -> Tensor:
        return torch.cat([pixels.std for pixels in self.each], -1)

    def _pairs(self, image: Tensor) -> list[tuple[Pixels, Tensor]]:
        return list(zip(self.each, views(image, len(self.each)), strict=True))

    def __call__(self, image: Tensor) -> Tensor:
        """(N, 3, H, V * H) uint8 -> whitened (N, 3, size, V * size)."""
        return torch.cat([pixels(view) for pixels, view in self._pairs(image)], -1)

    def resize(self, image: Tensor) -> Tensor:
        """(N, 3, H, V * H) uint8 -> (N, 3, size, V * size) float in [0, 1]."""
        return torch.cat([pixels.resize(view) for pixels, view in self._pairs(image)], -1)

    def unwhiten(self, white: Tensor) -> Tensor:
        """Whitened (N, 3, size, V * size) -> uint8 images of the same size."""
        return torch.cat([pixels.unwhiten(view) for pixels, view in self._pairs(white)], -1)

    def fit_statistics(self, image: Tensor) -> None:
        """Take the statistics of ``image`` (N, 3, H, V * H) uint8."""
        for pixels, view in self._pairs(image):
            pixels.fit_statistics(view)


class CamerasDecoder(Decoder):
    """Paints each view with a decoder of its own, for images (N, 3, H, V * H) of square views side by side.

    Args:
        feature_size: size F of a feature.
        decoders: build the decoder of each view, from left to right; all paint the same size.
    """

    def __init__(self, feature_size: int, decoders: list[Callable[[int], Decoder]]) -> None:
        super().__init__()
        built = [decoder(feature_size) for decoder in decoders]
        sizes = [decoder.pixels.size for decoder in built]
        if len(set(sizes)) != 1:
            raise ValueError(f"CamerasDecoder needs a decoder for each view, all of one size: got sizes {sizes}")
        self.decoders = nn.ModuleList(built)

    @property
    def pixels(self) -> CameraPixels:  # type: ignore[override]
        return CameraPixels([decoder.pixels for decoder in self.decoders])  # type: ignore[misc]

    def forward(self, feature: Tensor) -> Tensor:
        return torch.cat([decoder(feature) for decoder in self.decoders], -1)  # (N, 3, size, V * size)

    def loss(self, feature: Tensor, image: Tensor) -> Tensor:
        """The sum of all views' losses, (N,)."""
        pairs = zip(self.decoders, views(image, len(self.decoders)), strict=True)
        return torch.stack([decoder.loss(feature, view) for decoder, view in pairs]).sum(0)  # type: ignore[operator]
