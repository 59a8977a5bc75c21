"""Decoders p(o|s): a unit Gaussian on whitened pixels. Legend: N states, F feature."""

from __future__ import annotations

from abc import ABC, abstractmethod

from einops.layers.torch import Rearrange
from torch import Tensor, nn

from encoders.base import Pixels


class Decoder(nn.Module, ABC):
    """Features to images. ``pixels`` holds the target's size and statistics."""

    pixels: Pixels

    @abstractmethod
    def forward(self, feature: Tensor) -> Tensor:
        """(N, F) -> whitened images (N, 3, size, size)."""

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

    def __init__(self, feature_size: int, size: int = 32, channels: tuple[int, int] = (32, 64), patch: int = 4) -> None:
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

    def __init__(self, feature_size: int, size: int = 64, depth: int = 32) -> None:
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
