"""Actors: what acts in a state. Legend in worldmodel/types.py; F feature."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, OneHotCategoricalStraightThrough

from worldmodel.model.layers import MLP


class Actor(nn.Module, ABC):
    """pi(a|s). What is drawn has a density; ``bound`` makes it an action that model and environment take."""

    net: MLP

    @abstractmethod
    def distribution(self, feature: Tensor) -> Distribution:
        """Over draws (*B, A), from features (*B, F); ``rsample`` keeps a gradient path to the parameters."""

    @abstractmethod
    def mode(self, feature: Tensor) -> Tensor:
        """The most likely action (*B, A)."""

    def sample(self, feature: Tensor) -> Tensor:
        """A draw (*B, A)."""
        return self.distribution(feature).rsample()

    def bound(self, draw: Tensor) -> Tensor:
        """A draw (*B, A) as an action in its limits, with the draw's gradient."""
        return draw


class NormalActor(Actor):
    """Continuous actions: a normal with mean in (-1, 1) and deviation in [min_std, max_std], clipped to [-1, 1].

    A squashed normal with its exact entropy saturates; this one does not.
    """

    def __init__(
        self, feature_size: int, action_size: int, width: int, layers: int, min_std: float = 0.1, max_std: float = 1.0
    ) -> None:
        super().__init__()
        self.net = MLP(feature_size, 2 * action_size, width, layers, zero=True)
        self.min_std, self.max_std = min_std, max_std

    def distribution(self, feature: Tensor) -> Distribution:
        mean, raw = self.net(feature).float().chunk(2, -1)
        std = self.min_std + (self.max_std - self.min_std) * torch.sigmoid(raw + 2)
        return Independent(Normal(mean.tanh(), std, validate_args=False), 1, validate_args=False)

    def bound(self, draw: Tensor) -> Tensor:
        return draw + (draw.clamp(-1, 1) - draw).detach()

    def mode(self, feature: Tensor) -> Tensor:
        return self.distribution(feature).mean


class CategoricalActor(Actor):
    """Discrete actions: one-hot, 1% uniform mixed in, straight-through gradients."""

    def __init__(self, feature_size: int, action_size: int, width: int, layers: int, unimix: float = 0.01) -> None:
        super().__init__()
        self.net = MLP(feature_size, action_size, width, layers, zero=True)
        self.unimix = unimix

    def distribution(self, feature: Tensor) -> Distribution:
        probs = self.net(feature).float().softmax(-1)
        probs = (1 - self.unimix) * probs + self.unimix / probs.shape[-1]
        return OneHotCategoricalStraightThrough(probs=probs, validate_args=False)

    def mode(self, feature: Tensor) -> Tensor:
        return self.distribution(feature).mode
