"""Random shooting. Legend in base.py."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.control.planners.base import Dynamics, Planner, bound, given, ranked
from worldmodel.control.truncation import Truncation
from worldmodel.control.uncertainty_weight import UncertaintyWeight
from worldmodel.types import ActionSpec, Plan


class RandomShooting(Planner):
    """The best of many sequences of uniform actions (Nagabandi et al. 2018).

    Args:
        horizon, discount, uncertainty_weight, truncation: see Planner.
        candidates: sequences that are drawn for each problem; ``warm`` and the proposals come on top.
        elites: sequences E that the plan holds (all sequences, if there are fewer).

    Raises:
        ValueError: candidates or elites is below 1.
    """

    def __init__(
        self,
        horizon: int = 10,
        discount: float = 0.99,
        uncertainty_weight: float | UncertaintyWeight = 0.0,
        truncation: Truncation | None = None,
        candidates: int = 256,
        elites: int = 16,
    ) -> None:
        super().__init__(horizon, discount, uncertainty_weight, truncation)
        if candidates < 1 or elites < 1:
            raise ValueError(
                f"random shooting needs candidates and elites of at least 1, got {candidates} and {elites}"
            )
        self.candidates, self.elites = candidates, elites

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
        shape = (len(state), self.candidates, self.horizon, spec.size)
        # discrete ones are scores, of which ``bound`` takes the largest: every action is as likely
        drawn = 2 * torch.rand(shape, device=state.device, dtype=state.dtype) - 1
        sequences = bound(torch.cat([*given(warm, proposals), drawn], 1), spec)
        returns, uncertainty = self.score(dynamics, state, spec, sequences)
        elites, values = ranked(sequences, returns, self.elites)
        return self.select_best(
            spec,
            sequences,
            returns,
            uncertainty=uncertainty,
            std=torch.zeros_like(elites[:, 0]),
            elites=elites,
            values=values,
        )
