"""An actor that imitates a planner. Legend in worldmodel/types.py; N labelled states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from encoders.ranges import NonNegativeFloat
from worldmodel.control.actor_critic import ActorCritic, ImaginedReturns, PolicyGradient
from worldmodel.control.dynamics import LatentDynamics
from worldmodel.control.imagine import frozen, imagine
from worldmodel.control.planners.base import Dynamics, Planner, Step
from worldmodel.control.propagation import Propagation
from worldmodel.model.world_model import Metrics, WorldModel
from worldmodel.types import ActionSpec, LatentState, Plan


class ProbeDynamics(Dynamics):
    """States stay, and an action earns what its numbers add up to: to ask whether a planner can plan such actions."""

    def step(self, state: Tensor, action: Tensor) -> Step:
        reward = action.sum(-1)
        return Step(state, reward, torch.ones_like(reward), torch.zeros_like(reward))


class Imitator(ActorCritic):
    """The actor learns what a planner would do in the states that the actor came to itself (DAgger, Ross et al. 2011).

    Its loss is -log pi(a|s) of the planned action. The critic learns from the actor's imagined rollouts as ever, and
    says what the end of a plan is worth. No gradient passes through the model.

    Args:
        action, feature_size, propagation: see ActorCritic.
        planner: what is imitated; it has an uncertainty weight and a truncation of its own.
        labelled: states of a batch that are planned from at each update (all starts if there are fewer).
        entropy: weight of the entropy bonus, in units of the loss per nat.
        settings: further settings of ActorCritic.

    Raises:
        ValueError: ``labelled`` is below 1, or the planner cannot plan such actions.
    """

    def __init__(
        self,
        action: ActionSpec,
        feature_size: int,
        propagation: Propagation,
        planner: Planner,
        labelled: int = 16,
        entropy: NonNegativeFloat = 3e-3,
        **settings: Any,
    ) -> None:
        if labelled < 1:
            raise ValueError(f"labelled must be at least 1, or the actor has nothing to imitate; got {labelled}")
        super().__init__(action, feature_size, PolicyGradient(entropy), propagation, **settings)
        self.action, self.planner, self.labelled = action, planner, labelled
        planner.discount = self.discount
        with torch.random.fork_rng(devices=[]):  # complain before anything starts, not at the first update
            planner.plan(ProbeDynamics(), torch.zeros(1, 1), action)

    def label(self, world_model: WorldModel, start: LatentState) -> Plan:
        """Plan from states (N, ...), beginning with what the actor would do.

        In the model's eyes no plan is worse than that, unless the planner's dynamics draw their members at random.
        """
        planner = self.planner
        dynamics = LatentDynamics(world_model, self.critic, uncertainty=planner.needs_uncertainty)

        def act(state: LatentState) -> Tensor:
            return self.actor.mode(state.feature)

        with frozen(world_model, self.critic), torch.no_grad():  # a planner may take gradients of its own
            own = imagine(world_model, act, start, planner.horizon, mode=True, uncertainty=False).action
            return planner.plan(dynamics, start.feature, self.action, warm=own.to(start.feature.dtype))

    def _actor_loss(self, world_model: WorldModel, imagined: ImaginedReturns) -> tuple[Tensor, Metrics]:
        start = imagined.path.state.map(lambda x: x[: self.labelled, 0])  # in random order
        plan = self.label(world_model, start)
        distribution = self.actor.distribution(start.feature)
        entropy = distribution.entropy()  # (N,)
        gap = (plan.action - self.actor.mode(start.feature).detach()).square().mean()
        loss = -distribution.log_prob(plan.action) - self.objective.entropy * entropy
        metrics = {"entropy": entropy.detach().mean(), "imitation_gap": gap}
        return imagined.weight[: self.labelled, 0] * loss, metrics
