"""Model-predictive path integral control. Legend in base.py."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.control.planners.cem import NormalSearch
from worldmodel.control.truncation import Truncation
from worldmodel.control.uncertainty_weight import UncertaintyWeight


class MPPI(NormalSearch):
    """Path-integral control (Williams et al. 2017): sequences are fitted with weights softmax(return / temperature).

    Returns are first divided by their spread, for each problem: how far the better half falls behind the best, as root
    mean square. So ``temperature`` has no unit, and what goes terribly wrong does not make all else look the same, as
    it would with a deviation over all. At 0.3 about an eighth of the sequences carry the weight, at 1 more than half.

    Args:
        horizon, discount, uncertainty_weight, truncation: see Planner.
        candidates, iterations, std, min_std, beta: see NormalSearch.
        temperature: of the weights, in spreads of the returns.
        elites: sequences E that the plan holds.

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self,
        horizon: int = 10,
        discount: float = 0.99,
        uncertainty_weight: float | UncertaintyWeight = 0.0,
        truncation: Truncation | None = None,
        candidates: int = 64,
        iterations: int = 3,
        std: float = 0.5,
        min_std: float = 0.05,
        temperature: float = 0.3,
        beta: float = 0.0,
        elites: int = 8,
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        super().__init__(
            horizon,
            discount,
            uncertainty_weight,
            truncation,
            candidates=candidates,
            iterations=iterations,
            std=std,
            min_std=min_std,
            momentum=0.0,
            beta=beta,
            survivors=elites,
            elites=elites,
        )
        self.temperature = temperature

    def weigh(self, returns: Tensor) -> Tensor:
        finite = (returns > -torch.inf).to(returns.dtype)
        behind = (returns - returns[:, :1]).nan_to_num(neginf=0.0) * finite  # the best, (B, N), at most 0
        half = (returns.shape[1] + 1) // 2
        spread = ((behind[:, :half] ** 2).sum(1) / finite[:, :half].sum(1).clamp_min(1)).sqrt().unsqueeze(1)
        weights = (behind / (self.temperature * spread.clamp_min(1e-8))).exp() * finite
        return weights / weights.sum(1, keepdim=True).clamp_min(1e-8)
