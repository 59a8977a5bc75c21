"""How far an imagined rollout is believed, for planners and actor alike. Legend: M rollouts, H horizon."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Trust(ABC):
    """How far along an imagined rollout the model is believed."""

    @abstractmethod
    def __call__(self, uncertainty: Tensor) -> Tensor:
        """Weights (M, H) in [0, 1] by which ``cont`` is multiplied, from the uncertainty (M, H) of each step."""


class Always(Trust):
    """Whatever the doubt."""

    def __call__(self, uncertainty: Tensor) -> Tensor:
        return torch.ones_like(uncertainty)


class Truncate(Trust):
    """Up to the first step in greater doubt than ``limit``: what would come after it is worth nothing (MOReL)."""

    def __init__(self, limit: float = 5.0) -> None:
        if limit <= 0:
            raise ValueError(f"limit is a doubt above 0, got {limit}")
        self.limit = limit

    def __call__(self, uncertainty: Tensor) -> Tensor:
        return (uncertainty <= self.limit).to(uncertainty.dtype)


class Fade(Trust):
    """Less with every step in doubt: fully at the usual doubt, which is 1, and by half at ``half`` times the usual."""

    def __init__(self, half: float = 5.0) -> None:
        if half <= 1:
            raise ValueError(f"half is a doubt above the usual, which is 1; got {half}")
        self.half = half

    def __call__(self, uncertainty: Tensor) -> Tensor:
        return 2 ** (-(uncertainty - 1).clamp_min(0) / (self.half - 1))
