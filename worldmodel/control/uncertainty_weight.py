"""What uncertainty is worth to planners and actors. Legend: N rollouts, H horizon."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from encoders.ranges import PositiveFloat


class UncertaintyWeight(nn.Module, ABC):
    """What is added to the reward per unit of uncertainty; below 0 cautious, above 0 curious."""

    counts: bool = True  # False where the weight is always zero, so that nobody need measure the uncertainty

    @abstractmethod
    def forward(self, uncertainty: Tensor) -> Tensor:
        """The weight () to use now, without gradient, having taken in the uncertainty (N, H) of imagined rollouts."""

    def price(self, uncertainty: Tensor) -> Tensor:
        """What is added to the reward (N, H) of rollouts, whose first step is the first after what was seen."""
        return self.added(uncertainty, self(uncertainty))

    def added(self, uncertainty: Tensor, weight: Tensor) -> Tensor:
        """The same (N, H), given what a call has just returned."""
        return weight * uncertainty


class FixedWeight(UncertaintyWeight):
    """Always ``value``."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.counts = value, value != 0

    def forward(self, uncertainty: Tensor) -> Tensor:
        return torch.full((), self.value, device=uncertainty.device)


def as_weight(given: float | UncertaintyWeight) -> UncertaintyWeight:
    """A number as the weight that always is that."""
    return given if isinstance(given, UncertaintyWeight) else FixedWeight(given)


class TunedWeight(UncertaintyWeight):
    """Curious, so much that imagined rollouts are ``target`` times as uncertain as the data the model has seen.

    The logarithm of the weight w moves with that of the mean uncertainty u,
    log w += rate * clip(log(target / u), -1, 1).

    Args:
        target: the uncertainty to hold, in multiples of the usual; 1 would be to seek what is known.
        rate: largest change of log w in an update.
        initial: the weight at the start.
        limits: the least and the greatest weight.

    Raises:
        ValueError: target or rate is not above 0, or initial does not lie within limits above 0.
    """

    log_weight: Tensor

    def __init__(
        self,
        target: PositiveFloat = 2.0,
        rate: PositiveFloat = 0.01,
        initial: PositiveFloat = 0.1,
        limits: tuple[float, float] = (1e-3, 10.0),
    ) -> None:
        super().__init__()
        if target <= 0 or rate <= 0:
            raise ValueError(f"target and rate of a tuned weight must be above 0, got {target} and {rate}")
        if not 0 < limits[0] <= initial <= limits[1]:
            raise ValueError(f"a tuned weight's limits must be above 0 and hold initial, got {limits} and {initial}")
        self.target, self.rate = target, rate
        self.limits = (math.log(limits[0]), math.log(limits[1]))
        self.register_buffer("log_weight", torch.tensor(math.log(initial)))

    @torch.no_grad()
    def forward(self, uncertainty: Tensor) -> Tensor:
        uncertainty = uncertainty.detach().float().mean()
        step = self.rate * (self.target / uncertainty.clamp_min(1e-8)).log().clamp(-1, 1)
        # uncertainty that is not finite ends in a skipped step, and must not stay behind in here
        moved = self.log_weight + torch.where(uncertainty.isfinite(), step, 0.0)
        self.log_weight.copy_(moved.clamp(*self.limits))
        return self.log_weight.exp()
