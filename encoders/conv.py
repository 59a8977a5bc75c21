"""Convolutional encoders, trained from scratch."""

from __future__ import annotations

from einops.layers.torch import Rearrange
from torch import Tensor, nn

from encoders.base import Encoder, Pixels
from encoders.ranges import Side, Width


class PatchEncoder(Encoder):
    """Patches, then patches of patches: convolutions whose stride is their kernel, so each is one matrix product.

    Made for CPUs: no feature map is larger than a quarter of the side.

    Args:
        size: side of the network's input in pixels; images are resized to it.
        channels: channels after the first and after the second layer.
        patch: side of a patch in pixels.
    """

    def __init__(self, size: Side = 32, channels: tuple[Width, Width] = (48, 96), patch: Side = 4) -> None:
        super().__init__()
        if size < 1 or size % (2 * patch):
            raise ValueError(f"size {size} must be a multiple of twice the patch {patch}")
        self.pixels = Pixels(size)
        side = size // (2 * patch)
        self.embed_dim = channels[1] * side**2
        self.net = nn.Sequential(
            Rearrange("n c (h p) (w q) -> (n h w) (c p q)", p=patch, q=patch),
            nn.Linear(3 * patch**2, channels[0]),
            nn.SiLU(),
            Rearrange("(n h p w q) c -> (n h w) (p q c)", h=side, w=side, p=2, q=2),
            nn.Linear(4 * channels[0], channels[1]),
            nn.SiLU(),
            Rearrange("(n h w) c -> n (h w c)", h=side, w=side),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.net(self.pixels(image))  # (N, E)

    def fit_statistics(self, image: Tensor) -> None:
        self.pixels.fit_statistics(image)


class ConvEncoder(Encoder):
    """The classic net of strided 4x4 convolutions down to 4x4 (Ha and Schmidhuber 2018; Dreamer).

    Args:
        size: side of the network's input in pixels, a power of two of at least 8.
        depth: channels of the first layer; doubled by each.
    """

    def __init__(self, size: Side = 64, depth: Width = 32) -> None:
        super().__init__()
        layers = size.bit_length() - 3
        if layers < 1 or size != 4 << layers:
            raise ValueError(f"size must be a power of two of at least 8, got {size}")
        self.pixels = Pixels(size)
        self.embed_dim = 16 * depth * 2 ** (layers - 1)
        blocks: list[nn.Module] = []
        for i in range(layers):
            channels = depth * 2**i
            blocks += [
                nn.Conv2d(channels // 2 if i else 3, channels, 4, 2, 1, bias=False),
                nn.GroupNorm(1, channels),
                nn.SiLU(),
            ]
        self.net = nn.Sequential(*blocks, nn.Flatten())

    def forward(self, image: Tensor) -> Tensor:
        return self.net(self.pixels(image))  # (N, E)

    def fit_statistics(self, image: Tensor) -> None:
        self.pixels.fit_statistics(image)
