"""Encoders around a pretrained backbone, frozen, tuned in part, or trained whole.

Legend: N images, H x W pixels, S side of the backbone's images, C channels, E embedding.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from encoders.backbone import Backbone, Seen
from encoders.base import Encoder
from encoders.readouts import Pooled, Readout, Shape
from encoders.weights import one_line


class Pretrained(Encoder):
    """A backbone, and a readout that is trained.

    The backbone stays in eval mode, tuned or not: a batch norm keeps its statistics, and nothing is dropped, so that
    an image's embedding depends on no other image.

    Args:
        backbone: the network; images of any size are resized to its own (bilinear with antialiasing).
        readout: what is read of it, and the adapter; built from the shape of what it gives.
        tune: how many of its last blocks are trained: 0 freezes all, null trains all, stem included.
        batch: images that a frozen backbone sees at a time, always that many; the last are padded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        readout: Callable[[Shape], Readout] = Pooled,
        tune: int | None = 0,
        batch: int = 8,
    ) -> None:
        super().__init__()
        if batch < 1:
            raise ValueError(f"a frozen backbone sees at least 1 image at a time, got batch {batch}")
        mean, std = backbone.mean, backbone.std
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"mean and std are three numbers each, std above zero: got {mean} and {std}")
        self.backbone, self.tune, self.batch = backbone.eval(), tune, batch
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self._identity: str | None = None
        with torch.no_grad():
            seen = self._probe()
        channels, height, side = seen.map.shape[1:]
        self.readout = readout(Shape(channels, height, side, seen.token is not None))
        self.embed_dim = self.readout.embed_dim
        self._freeze()
        if not backbone.loaded and tune is not None:
            warnings.warn(
                f"{backbone.name} is random and frozen: give it weights, or train it (tune: null)", stacklevel=2
            )

    def _probe(self) -> Seen:
        """What the backbone gives for one image."""
        size = self.backbone.size
        try:
            return self.backbone(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError, ValueError) as cause:
            raise ValueError(
                f"{self.backbone.name} cannot take images of {size} x {size}: {one_line(cause)}"
            ) from cause

    def _freeze(self) -> None:
        """Leave a gradient to the last blocks only, and among them to what the readout depends on."""
        if self.tune == 0:
            self.backbone.requires_grad_(False)
            return
        with torch.enable_grad():
            self.backbone.requires_grad_(True)
            self.readout.place(self._probe()).sum().backward()
        used = [[p for p in block if p.grad is not None] for block in self.backbone.blocks()]
        used = [block for block in used if block]
        self.backbone.zero_grad()
        count = len(used) if self.tune is None else self.tune
        if not 0 <= count <= len(used):
            raise ValueError(
                f"{self.backbone.name} has {len(used)} blocks with its stem: tune at most these, not {count}"
            )
        self.backbone.requires_grad_(False)
        for block in used[len(used) - count :]:
            for parameter in block:
                parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> Pretrained:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        if self.tune == 0:
            return self.adapt(self.features(image))
        return self.adapt(self._read(image))

    @property
    def feature_shape(self) -> tuple[int, ...] | None:
        return self.readout.feature_shape if self.tune == 0 else None

    def features(self, image: Tensor) -> Tensor:
        if self.tune != 0:
            raise ValueError(f"{self.backbone.name} is tuned: its features change, and cannot be stored")
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            return torch.cat([self._padded(part) for part in image.split(self.batch)])

    def _padded(self, image: Tensor) -> Tensor:
        """As many images as always: kernels differ with the size of the batch, and so do last bits."""
        missing = self.batch - len(image)
        return self._read(F.pad(image, (0, 0, 0, 0, 0, 0, 0, missing)))[: len(image)].float()

    def adapt(self, features: Tensor) -> Tensor:
        return self.readout(features)  # (N, E)

    def _read(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, *feature_shape), with a gradient where something is tuned."""
        return self.readout.place(self.backbone(self._normalised(image)))

    def _normalised(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> (N, 3, S, S)."""
        height, width = image.shape[-2:]
        if height != width:
            raise ValueError(f"images of {height}x{width} are not square: give each camera its encoder, with Cameras")
        small, size = image.to(self.mean.dtype) / 255, self.backbone.size
        if height != size:
            small = F.interpolate(small, (size, size), mode="bilinear", antialias=True)
        return (small - self.mean) / self.std

    @torch.no_grad()
    def fit_statistics(self, image: Tensor) -> None:
        """Give the batch norms of a network that is trained from scratch the statistics of ``image``, once."""
        norms = [module for module in self.backbone.modules() if isinstance(module, _BatchNorm)]
        fresh = all(norm.num_batches_tracked == 0 for norm in norms)
        if self.tune is not None or self.backbone.loaded or not fresh:
            return
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train().momentum = None  # the mean over all batches
        for part in image[: len(image) // 2 * 2].split(64):  # a batch norm needs two images
            self.backbone(self._normalised(part))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval().momentum = momentum

    def identity(self) -> str:
        if self.tune != 0:
            raise ValueError(f"{self.backbone.name} is tuned: its features change, and cannot be stored")
        if self._identity is None:
            digest = hashlib.sha256()
            for name, tensor in [*self.backbone.state_dict().items(), ("mean", self.mean), ("std", self.std)]:
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            where = f"stride {self.backbone.stride or 'last'}, size {self.backbone.size}"
            name = f"{type(self).__name__} {self.backbone.name}, {type(self.readout).__name__}, {where}"
            self._identity = f"{name}, {digest.hexdigest()[:16]}"
        return self._identity

    def pretrained_parameters(self) -> list[nn.Parameter]:
        tuned = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        return tuned if self.backbone.loaded else []

    def _load_from_state_dict(self, *args: Any) -> None:
        self._identity = None
        super()._load_from_state_dict(*args)
