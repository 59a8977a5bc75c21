"""The value of a state. Legend in worldmodel/types.py; F feature."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from encoders.ranges import Layers, PositiveFloat, PositiveShare, Share, Width
from worldmodel.model.distributions import TwoHot
from worldmodel.model.layers import MLP


class Critic(nn.Module):
    """v(s): two-hot over exponential bins, starting at zero, with a target critic (DreamerV3).

    Args:
        feature_size: F.
        width, layers: of the hidden layers.
        bins, limit: two-hot bins, the outermost at +-symexp(limit).
        target_rate: share of the critic that the target critic takes over at each update.
        lam: lambda of the returns that it learns.
    """

    def __init__(
        self,
        feature_size: int,
        width: Width,
        layers: Layers,
        bins: Width = 63,
        limit: PositiveFloat = 8.0,
        target_rate: PositiveShare = 0.02,
        lam: Share = 0.95,
    ) -> None:
        super().__init__()
        self.net = MLP(feature_size, bins, width, layers, zero=True)
        self.target = copy.deepcopy(self.net).requires_grad_(False)
        self.twohot = TwoHot(bins, limit)
        self.target_rate, self.lam = target_rate, lam

    def forward(self, feature: Tensor) -> Tensor:
        """Value (*B,) of features (*B, F)."""
        return self.twohot.mean(self.net(feature))

    def loss(self, feature: Tensor, returns: Tensor) -> Tensor:
        """Cross-entropy to the returns (*B,), and to the target critic's values so that it does not run away."""
        logits = self.net(feature)
        with torch.no_grad():
            target = self.twohot.mean(self.target(feature))
        return self.twohot.loss(logits, returns) + self.twohot.loss(logits, target)

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the target critic a little towards the critic; after every update."""
        torch._foreach_lerp_(list(self.target.parameters()), list(self.net.parameters()), self.target_rate)
