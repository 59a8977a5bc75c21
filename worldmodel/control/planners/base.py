"""What a planner sees: a dynamics callable and typed inputs, never a network.

So it works for anything that can be stepped. What is drawn comes from torch's global generator.

Legend: B problems at once, N sequences tried for each, M = B * N, H horizon, X state size, A action size, E elites.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from worldmodel.control.truncation import NoTruncation, Truncation
from worldmodel.control.uncertainty_weight import UncertaintyWeight, as_weight
from worldmodel.types import ActionSpec, Plan, Trajectory


class Step(NamedTuple):
    """Where an action leads."""

    state: Tensor  # (M, X)
    reward: Tensor  # (M,)
    cont: Tensor  # (M,) probability that the episode goes on
    uncertainty: Tensor  # (M,) what the dynamics do not know of this step; 1 is usual


class Dynamics(ABC):
    """How states move. Only ``step`` has to be given."""

    @abstractmethod
    def step(self, state: Tensor, action: Tensor) -> Step:
        """One step from states (M, X) under actions (M, A) within their limits."""

    def rollout(self, state: Tensor, actions: Tensor) -> Trajectory[Tensor]:
        """Steps from states (M, X) under sequences (M, H, A); its states are (M, H + 1, X)."""
        steps = []
        states = [state]
        for action in actions.unbind(1):
            steps.append(self.step(states[-1], action))
            states.append(steps[-1].state)
        reward, cont, uncertainty = (torch.stack([s[i] for s in steps], 1) for i in (1, 2, 3))
        return Trajectory(
            state=torch.stack(states, 1), action=actions, reward=reward, cont=cont, uncertainty=uncertainty
        )

    def value(self, state: Tensor) -> Tensor:
        """What states (M, X) are worth beyond the horizon, (M,); zero unless there is a critic."""
        return state.new_zeros(len(state))

    def renew(self) -> None:  # noqa: B027
        """Called before each plan: where dynamics are drawn at random, draw them now."""


class Planner(ABC):
    """Chooses a sequence of actions by what the dynamics say of it.

    Args:
        horizon: steps H that are looked ahead.
        discount: per step.
        uncertainty_weight: added to the reward per unit of uncertainty; below 0 cautious, above 0 curious; or an object
            that says what is added.
        truncation: how far along a rollout the dynamics are believed.

    Raises:
        ValueError: the horizon is below 1, or the discount outside (0, 1].
    """

    def __init__(
        self,
        horizon: int = 10,
        discount: float = 0.99,
        uncertainty_weight: float | UncertaintyWeight = 0.0,
        truncation: Truncation | None = None,
    ) -> None:
        if horizon < 1:
            raise ValueError(f"a planner's horizon must be at least 1, got {horizon}")
        if not 0 < discount <= 1:
            raise ValueError(f"a planner's discount must be in (0, 1], got {discount}")
        self.horizon, self.discount, self.uncertainty_weight = horizon, discount, as_weight(uncertainty_weight)
        self.truncation = truncation or NoTruncation()
        self.needs_uncertainty = self.uncertainty_weight.counts or not isinstance(self.truncation, NoTruncation)

    @abstractmethod
    def plan(
        self,
        dynamics: Dynamics,
        state: Tensor,
        spec: ActionSpec,
        warm: Tensor | None = None,
        proposals: Tensor | None = None,
    ) -> Plan:
        """Plan from each of B states.

        A sequence whose return is not finite is never chosen. Where there is no other, the plan is zeros and its value
        -inf. With deterministic dynamics the plan is worth at least what ``warm`` and each of the proposals are.

        Args:
            dynamics: what is asked; renewed once.
            state: (B, X) of any device and floating type, which the plan has too.
            spec: what an action is.
            warm: (B, H, A) where to begin, such as the last plan shifted by a step.
            proposals: (B, N, H, A) sequences to consider too, such as an actor's or the last plan's elites.

        Raises:
            ValueError: actions of this kind cannot be planned.
        """

    def returns(self, dynamics: Dynamics, rollout: Trajectory[Tensor]) -> Tensor:
        """Discounted returns (M,) of rollouts, uncertainty weighed in, with the value of their last state.

        sum_t alive_t (r_t + w(u)_t) + alive_H v(s_H), where alive_0 = 1, alive_{t+1} = alive_t discount cont_t trust_t.
        """
        reward = rollout.reward + self.uncertainty_weight.price(rollout.uncertainty)
        discount = self.discount * rollout.cont * self.truncation(rollout.uncertainty)  # (M, H)
        alive = torch.cat([torch.ones_like(discount[:, :1]), discount.cumprod(1)], 1)  # (M, H + 1)
        return (alive[:, :-1] * reward).sum(1) + alive[:, -1] * dynamics.value(rollout.state[:, -1])

    def score(self, dynamics: Dynamics, state: Tensor, spec: ActionSpec, sequences: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (B, N) of sequences (B, N, H, A) from states (B, X), and their mean uncertainty (B, N).

        A return that is not finite becomes -inf.
        """
        count = sequences.shape[1]
        start = repeat(state, "b x -> (b n) x", n=count)
        rollout = dynamics.rollout(start, bound(rearrange(sequences, "b n h a -> (b n) h a"), spec))
        returns = self.returns(dynamics, rollout)
        returns = torch.where(returns.isfinite(), returns, torch.full_like(returns, -torch.inf))
        split = "(b n) -> b n"
        return rearrange(returns, split, n=count), rearrange(rollout.uncertainty.mean(1), split, n=count)

    @staticmethod
    def select_best(
        spec: ActionSpec,
        options: Tensor,
        returns: Tensor,
        uncertainty: Tensor,
        std: Tensor,
        elites: Tensor,
        values: Tensor,
    ) -> Plan:
        """The best of the options (B, N, H, A) by their returns (B, N) as a plan; the first of equal ones.

        Args:
            spec: what an action is.
            options, returns, uncertainty: what may be chosen, and its score.
            std, elites, values: the plan's (B, H, A), (B, E, H, A) and (B, E).
        """
        best = returns.argmax(1, keepdim=True)  # (B, 1)
        value, uncertainty = returns.gather(1, best)[:, 0], uncertainty.gather(1, best)[:, 0]
        mean = options.take_along_dim(best[..., None, None], 1)[:, 0]  # (B, H, A)
        mean = torch.where(value[:, None, None] > -torch.inf, mean, 0)
        return Plan(
            action=bound(mean[:, 0], spec),
            mean=mean,
            std=std,
            value=value,
            uncertainty=uncertainty,
            elites=elites,
            elite_values=values,
        )


def ranked(sequences: Tensor, returns: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` best (fewer if there are not as many) of sequences (B, N, H, A) and returns (B, N), best first."""
    returns, order = returns.topk(min(count, returns.shape[1]), 1)
    return sequences.take_along_dim(order[..., None, None], 1), returns


def given(warm: Tensor | None, proposals: Tensor | None) -> list[Tensor]:
    """What a planner was given to begin with, as a list of finite sequences (B, N, H, A)."""
    sequences = ([] if warm is None else [warm.unsqueeze(1)]) + ([] if proposals is None else [proposals])
    return [s.nan_to_num() for s in sequences]


def bound(sequences: Tensor, spec: ActionSpec) -> Tensor:
    """Any numbers (*B, A) as actions: within [-1, 1], or the one-hot vector of the largest.

    Limits let gradients through unchanged, so that an action that stands at one can leave it.
    """
    if spec.discrete:
        return F.one_hot(sequences.argmax(-1), spec.size).to(sequences.dtype)
    clamped = sequences.clamp(-1, 1)
    return sequences + (clamped - sequences).detach() if sequences.requires_grad else clamped
