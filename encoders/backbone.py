"""The network inside a pretrained encoder, as far as it is used.

Legend: N images, S side, C channels, h x w places of the feature map.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn

from encoders.weights import Shapes, State, fit

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RGB = tuple[float, float, float]


class Seen(NamedTuple):
    """What a backbone makes of images: a map (N, C, h, w), and the class token (N, C) of those that have one."""

    map: Tensor
    token: Tensor | None


class Backbone(nn.Module, ABC):
    """Normalised images to a feature map. ``model`` keeps the names of its library, so that files fit.

    Args:
        model: the network, already cut to what is used.
        whole: names and shapes of the network before it was cut.
        name: of the network.
        size: side S of its images in pixels.
        stride: pixels from one place of the map to the next; None for the backbone's own end.
        mean, std: of the colours in [0, 1] that the weights expect.
    """

    model: Any  # of another library

    def __init__(
        self, model: nn.Module, whole: Shapes, name: str, size: int, stride: int | None, mean: RGB, std: RGB
    ) -> None:
        super().__init__()
        self.model, self.name, self.size, self.stride = model, name, size, stride
        self.mean, self.std = mean, std
        self.loaded = False
        self._whole = whole

    @abstractmethod
    def forward(self, image: Tensor) -> Seen:
        """Normalised (N, 3, S, S) -> map (N, C, h, w) and token (N, C)."""

    @abstractmethod
    def blocks(self) -> list[list[nn.Parameter]]:
        """Parameters of the stem and of each block, in the order in which an image passes them."""

    def convert(self, state: State) -> State:
        """Weights as published to this network's names and sizes."""
        return state

    def load(self, state: State, source: str, spare: Iterable[str] = ()) -> None:
        """Take the weights ``state``; names that begin with one of ``spare`` are left out.

        Raises:
            ValueError: they are of another network.
        """
        state = {name: tensor for name, tensor in state.items() if not name.startswith(tuple(spare))}
        fit(self.model, self.convert(state), whole=self._whole, name=self.name, source=source)
        self.loaded = True
