"""How far an imagined rollout is believed, for planners and actor alike. Legend: M rollouts, H horizon."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Truncation(ABC):
    """How far along an imagined rollout the model is believed."""

    @abstractmethod
    def __call__(self, uncertainty: Tensor) -> Tensor:
        """Weights (M, H) in [0, 1] by which ``cont`` is multiplied, from the uncertainty (M, H) of each step."""


class NoTruncation(Truncation):
    """Always, whatever the uncertainty."""

    def __call__(self, uncertainty: Tensor) -> Tensor:
        return torch.ones_like(uncertainty)


class AtLimit(Truncation):
    """Up to the first step more uncertain than ``limit``: what would come after it is worth nothing (MOReL)."""

    def __init__(self, limit: float = 5.0) -> None:
        if limit <= 0:
            raise ValueError(f"limit is an uncertainty above 0, got {limit}")
        self.limit = limit

    def __call__(self, uncertainty: Tensor) -> Tensor:
        return (uncertainty <= self.limit).to(uncertainty.dtype)


class Gradual(Truncation):
    """Less with every uncertain step: fully at the typical uncertainty, which is 1, by half at ``half`` times that."""

    def __init__(self, half: float = 5.0) -> None:
        if half <= 1:
            raise ValueError(f"half is an uncertainty above the typical one, which is 1; got {half}")
        self.half = half

    def __call__(self, uncertainty: Tensor) -> Tensor:
        return 2 ** (-(uncertainty - 1).clamp_min(0) / (self.half - 1))
