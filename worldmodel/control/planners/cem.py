"""The cross-entropy method, and the search that it shares with MPPI. Legend in base.py."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from worldmodel.control.planners.base import Dynamics, Planner, bound, given, ranked
from worldmodel.control.planners.noise import Noise
from worldmodel.control.truncation import Truncation
from worldmodel.control.uncertainty_weight import UncertaintyWeight
from worldmodel.types import ActionSpec, Plan


class NormalSearch(Planner):
    """Draw sequences from a normal, weigh them by their returns, fit the normal to them, and so on.

    Sequences are actions as soon as they are drawn, clamped or one-hot, and the normal is fitted to those. For
    discrete actions its mean is thus the frequency of each action. The first mean, ``warm`` or zeros, is tried too, and
    the best sequences so far are tried again in each iteration (with random dynamics, a lucky one is found out). The
    plan is the better of the last mean and the best sequence, scored once more.

    Args:
        horizon, discount, uncertainty_weight, truncation: see Planner.
        candidates: sequences N that are drawn for each problem in each iteration.
        iterations: how often.
        std: deviation that the search begins with.
        min_std: deviation that it never falls below.
        momentum: share of the old mean and deviation that a fit leaves.
        beta: exponent of the noise over time, see Noise.
        survivors: sequences that go into the next iteration.
        elites: sequences E that the plan holds.

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self,
        horizon: int,
        discount: float,
        uncertainty_weight: float | UncertaintyWeight,
        truncation: Truncation | None,
        candidates: int,
        iterations: int,
        std: float,
        min_std: float,
        momentum: float,
        beta: float,
        survivors: int,
        elites: int,
    ) -> None:
        super().__init__(horizon, discount, uncertainty_weight, truncation)
        if candidates < 1 or iterations < 1 or elites < 1:
            got = f"{candidates}, {iterations} and {elites}"
            raise ValueError(f"candidates, iterations and the number of elites must be at least 1, got {got}")
        if std <= 0 or min_std < 0:
            raise ValueError(f"std must be above 0 and min_std at least 0, got {std} and {min_std}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.candidates, self.iterations, self.momentum = candidates, iterations, momentum
        self.std, self.min_std, self.survivors, self.elites = std, min_std, survivors, elites
        self.noise = Noise(horizon, beta)

    @abstractmethod
    def weigh(self, returns: Tensor) -> Tensor:
        """Weights (B, N) of sequences by their returns, best first; they sum to 1 where the first is finite."""

    @torch.no_grad()
    def plan(
        self,
        dynamics: Dynamics,
        state: Tensor,
        spec: ActionSpec,
        warm: Tensor | None = None,
        proposals: Tensor | None = None,
    ) -> Plan:
        dynamics.renew()
        mean = state.new_zeros(len(state), self.horizon, spec.size) if warm is None else warm.nan_to_num()
        std = torch.full_like(mean, self.std)
        extra = given(mean, proposals)
        for _ in range(self.iterations):
            drawn = mean.unsqueeze(1) + std.unsqueeze(1) * self.noise(len(state), self.candidates, spec.size, mean)
            sequences = bound(torch.cat([*extra, drawn], 1), spec)
            returns, _ = self.score(dynamics, state, spec, sequences)
            sequences, returns = ranked(sequences, returns, returns.shape[1])
            mean, std = self._fit(mean, std, sequences, returns)
            extra = [sequences[:, : self.survivors]]
        options = torch.cat([sequences[:, :1], mean.unsqueeze(1)], 1)
        value, uncertainty = self.score(dynamics, state, spec, options)
        elites, values = sequences[:, : self.elites], returns[:, : self.elites]
        return self.select_best(spec, options, value, uncertainty=uncertainty, std=std, elites=elites, values=values)

    def _fit(self, mean: Tensor, std: Tensor, sequences: Tensor, returns: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted mean and deviation (B, H, A) of sequences; the old ones where no return is finite."""
        # sums, not products of matrices, which autocast would round
        weights = self.weigh(returns)[..., None, None].to(mean.dtype)  # (B, N, 1, 1)
        new = (weights * sequences).sum(1)
        spread = (weights * (sequences - new.unsqueeze(1)) ** 2).sum(1).sqrt()
        share = (1 - self.momentum) * (returns[:, :1, None] > -torch.inf).to(new.dtype)  # (B, 1, 1)
        return mean.lerp(new, share), std.lerp(spread, share).clamp_min(self.min_std)


class CEM(NormalSearch):
    """The cross-entropy method (Rubinstein 1999), with coloured noise and kept elites (iCEM, Pinneri et al. 2020).

    Args:
        horizon, discount, uncertainty_weight, truncation: see Planner.
        candidates, iterations, std, min_std, momentum, beta: see NormalSearch.
        elites: best sequences E that the normal is fitted to.
        survival: share of the elites that goes into the next iteration, and at least one.

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
        elites: int = 8,
        iterations: int = 4,
        std: float = 0.5,
        min_std: float = 0.05,
        momentum: float = 0.1,
        beta: float = 0.0,
        survival: float = 0.3,
    ) -> None:
        if not 1 <= elites <= candidates:
            raise ValueError(f"elites must be at least 1 and at most the {candidates} candidates, got {elites}")
        if not 0 <= survival <= 1:
            raise ValueError(f"survival is a share of the elites in [0, 1], got {survival}")
        survivors = max(1, math.ceil(survival * elites))
        super().__init__(
            horizon, discount, uncertainty_weight, truncation, candidates=candidates, iterations=iterations, std=std,
            min_std=min_std, momentum=momentum, beta=beta, survivors=survivors, elites=elites,
        )  # fmt: skip

    def weigh(self, returns: Tensor) -> Tensor:
        finite = (returns > -torch.inf).to(returns.dtype)
        finite[:, self.elites :] = 0
        return finite / finite.sum(1, keepdim=True).clamp_min(1)
