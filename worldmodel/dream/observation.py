"""What a learner is shown of a dream. Legend in worldmodel/types.py; h x w pixels of the decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState


class DreamObservation(ABC):
    """Latent states to observations."""

    @abstractmethod
    def space(self, world_model: WorldModel) -> spaces.Box:
        """Of one dream's observation."""

    @abstractmethod
    def __call__(self, world_model: WorldModel, state: LatentState) -> Tensor:
        """States (N, ...) to observations (N, *space.shape) of its dtype."""


class LatentFeature(DreamObservation):
    """The feature, memory and latent side by side: (D + Z,) float32. What the run's own actor sees."""

    def space(self, world_model: WorldModel) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, (world_model.feature_size,), np.float32)

    def __call__(self, world_model: WorldModel, state: LatentState) -> Tensor:
        return state.feature.float()


class DecodedPixels(DreamObservation):
    """The image as the decoder draws it: (3, h, w) uint8."""

    @torch.no_grad()
    def space(self, world_model: WorldModel) -> spaces.Box:
        image = self(world_model, world_model.rssm.initial(1))
        return spaces.Box(0, 255, image.shape[1:], np.uint8)

    def __call__(self, world_model: WorldModel, state: LatentState) -> Tensor:
        return world_model.decoder.image(state.feature)


# what they are called at the front door
OBSERVATIONS: dict[str, type[DreamObservation]] = {"latent": LatentFeature, "pixels": DecodedPixels}
