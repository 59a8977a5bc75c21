"""Dynamics with a known optimum. Legend: M rollouts, B problems, H horizon, X state size, A action size."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.control.planners.base import Dynamics, Step
from worldmodel.types import ActionSpec


def certain(state: Tensor, reward: Tensor) -> Step:
    """A step that never ends an episode and is not doubted."""
    return Step(state, reward, torch.ones_like(reward), torch.zeros_like(reward))


class DoubleIntegrator(Dynamics):
    """Push a mass on a line: x = (position, velocity), x' = A x + B u, reward -(x'^T Q x' + u^T R u), A = 1."""

    spec = ActionSpec(1, discrete=False)
    A = torch.tensor([[1.0, 0.2], [0.0, 1.0]], dtype=torch.float64)
    B = torch.tensor([[0.02], [0.2]], dtype=torch.float64)
    Q = torch.diag(torch.tensor([1.0, 0.1], dtype=torch.float64))
    R = torch.tensor([[0.05]], dtype=torch.float64)

    def step(self, state: Tensor, action: Tensor) -> Step:
        a, b, q, r = (x.to(state) for x in (self.A, self.B, self.Q, self.R))
        after = state @ a.T + action @ b.T
        return certain(after, -((after @ q) * after).sum(-1) - ((action @ r) * action).sum(-1))

    def optimum(self, state: Tensor, horizon: int, discount: float) -> tuple[Tensor, Tensor]:
        """The best sequences (B, H, 1) from states (B, 2) and their returns (B,), while |u| <= 1 does not bind."""
        a, b, q, r = self.A, self.B, self.Q, self.R
        worth, gains = torch.zeros_like(q), []
        for _ in range(horizon):  # the Riccati recursion, from the end: the return to go is -x^T worth x
            ahead = q + discount * worth
            gains.insert(0, torch.linalg.solve(r + b.T @ ahead @ b, b.T @ ahead @ a))
            worth = a.T @ ahead @ (a - b @ gains[0])
        x, actions = state.to(q), []
        for gain in gains:
            actions.append(-x @ gain.T)
            x = x @ a.T + actions[-1] @ b.T
        first = state.to(q)
        return torch.stack(actions, 1).to(state), -((first @ worth) * first).sum(-1).to(state)


class Reach(Dynamics):
    """Walk to ``goal`` in the plane: p' = p + 0.3 a, reward -|p' - goal|^2."""

    spec = ActionSpec(2, discrete=False)
    goal = torch.tensor([0.5, -0.4])

    def step(self, state: Tensor, action: Tensor) -> Step:
        after = state + 0.3 * action
        return certain(after, -((after - self.goal.to(state)) ** 2).sum(-1))

    def optimum(self, state: Tensor, horizon: int, discount: float) -> tuple[Tensor, Tensor]:
        """The best sequences (B, H, 2), straight to the goal along each axis, and their returns (B,)."""
        actions, total = [], torch.zeros_like(state[:, 0])
        for t in range(horizon):
            actions.append(((self.goal.to(state) - state) / 0.3).clamp(-1, 1))
            state, reward, _, _ = self.step(state, actions[-1])
            total = total + discount**t * reward
        return torch.stack(actions, 1), total


class Beacon(Reach):
    """Reach without rewards: only the value of the last state says where the goal is."""

    def step(self, state: Tensor, action: Tensor) -> Step:
        after, reward, _, _ = super().step(state, action)
        return certain(after, 0 * reward)

    def value(self, state: Tensor) -> Tensor:
        return -((state - self.goal.to(state)) ** 2).sum(-1)


class Cliff(Dynamics):
    """Safe ground at x < 0, worth at most 1 a step at (-1, 0). Right of it nothing is known: ``bait`` x is promised
    there, and the uncertainty is 10 x. p' = p + 0.3 a."""

    spec = ActionSpec(2, discrete=False)

    def __init__(self, bait: float = 2.0) -> None:
        self.bait = bait

    def step(self, state: Tensor, action: Tensor) -> Step:
        after = state + 0.3 * action
        beyond = after[:, 0].relu()
        safe = (-((after - after.new_tensor([-1.0, 0.0])) ** 2).sum(-1)).exp()
        return Step(after, safe + self.bait * beyond, torch.ones_like(beyond), 10 * beyond)


class Chain(Dynamics):
    """Five places in a row, actions left, stay, right; the last place earns 1. State (M, 1): the place, 0 to 4."""

    spec = ActionSpec(3, discrete=True)
    last = 4

    def step(self, state: Tensor, action: Tensor) -> Step:
        after = (state + action[:, 2:] - action[:, :1]).clamp(0, self.last)
        return certain(after, (after[:, 0] == self.last).to(state.dtype))

    def optimum(self, state: Tensor, horizon: int, discount: float) -> Tensor:
        """The best returns (B,): right until the end, then stay."""
        t = torch.arange(horizon)
        return (discount**t * (t + 1 >= self.last - state)).sum(1).to(state)
