"""Gradient ascent on the actions. Legend in base.py."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.control.planners.base import Dynamics, Planner, bound, given, ranked
from worldmodel.control.truncation import Truncation
from worldmodel.control.uncertainty_weight import UncertaintyWeight
from worldmodel.types import ActionSpec, Plan


class GradientPlanner(Planner):
    """Adam (Kingma & Ba 2015) on the sequences of actions, backwards through the dynamics.

    All starts climb at once: ``warm`` (or zeros), the proposals, and ``candidates`` - 1 of uniform actions. Actions are
    clamped to [-1, 1] after each step, and the rate falls linearly to zero. Of each start the best iterate is kept, the
    start among them. Gradients are taken even inside ``torch.no_grad``, of the sequences only.

    Args:
        horizon, discount, uncertainty_weight, truncation: see Planner.
        steps: of the ascent.
        rate: how far an action moves in the first of them.
        candidates: starts, not counting proposals.
        elites: sequences E that the plan holds (all starts, if there are fewer).

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self,
        horizon: int = 10,
        discount: float = 0.99,
        uncertainty_weight: float | UncertaintyWeight = 0.0,
        truncation: Truncation | None = None,
        steps: int = 20,
        rate: float = 0.1,
        candidates: int = 1,
        elites: int = 8,
    ) -> None:
        super().__init__(horizon, discount, uncertainty_weight, truncation)
        if steps < 1 or candidates < 1 or elites < 1:
            raise ValueError(f"steps, candidates and elites must be at least 1, got {steps}, {candidates} and {elites}")
        if rate <= 0:
            raise ValueError(f"rate must be above 0, got {rate}")
        self.steps, self.rate, self.candidates, self.elites = steps, rate, candidates, elites

    def plan(
        self,
        dynamics: Dynamics,
        state: Tensor,
        spec: ActionSpec,
        warm: Tensor | None = None,
        proposals: Tensor | None = None,
    ) -> Plan:
        if spec.discrete:
            raise ValueError("GradientPlanner plans continuous actions only: use CEM, MPPI or RandomShooting")
        dynamics.renew()
        warm = state.new_zeros(len(state), self.horizon, spec.size) if warm is None else warm
        shape = (len(state), self.candidates - 1, self.horizon, spec.size)
        drawn = 2 * torch.rand(shape, device=state.device, dtype=state.dtype) - 1
        starts = bound(torch.cat([*given(warm, proposals), drawn], 1), spec)
        with torch.inference_mode(False), torch.enable_grad():
            climbed, returns = self._climb(dynamics, state.detach().clone(), spec, starts.detach().clone())
        with torch.no_grad():
            elites, values = ranked(climbed, returns, self.elites)
            options = torch.cat([elites[:, :1], starts[:, :1]], 1)
            value, uncertainty = self.score(dynamics, state, spec, options)
        std = torch.zeros_like(warm)
        return self.select_best(spec, options, value, uncertainty=uncertainty, std=std, elites=elites, values=values)

    def _climb(self, dynamics: Dynamics, state: Tensor, spec: ActionSpec, x: Tensor) -> tuple[Tensor, Tensor]:
        """The best iterates (B, N, H, A) of the ascent from ``x``, and their returns (B, N)."""
        best, highest = x, x.new_full(x.shape[:2], -torch.inf)
        first, second = torch.zeros_like(x), torch.zeros_like(x)  # Adam's moments
        for i in range(self.steps + 1):
            leaf = x.detach().requires_grad_()
            returns, _ = self.score(dynamics, state, spec, leaf)
            higher = returns.detach() > highest
            best = torch.where(higher[..., None, None], x, best)
            highest = torch.where(higher, returns.detach(), highest)
            if i == self.steps:
                break
            (slope,) = torch.autograd.grad(returns.sum(), leaf)
            slope = slope.nan_to_num(0, 0, 0)  # each sequence has its own: a broken one stands still
            first, second = first.lerp(slope, 0.1), second.lerp(slope**2, 0.001)
            up = (first / (1 - 0.9 ** (i + 1))) / ((second / (1 - 0.999 ** (i + 1))).sqrt() + 1e-8)
            x = (x + self.rate * (1 - i / self.steps) * up).clamp(-1, 1)
        return best, highest
