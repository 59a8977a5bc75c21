"""Who acts: any checkpoint can be driven by its actor, by a planner, or at random."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

import torch

from worldmodel.control.actor_critic import ActorCritic
from worldmodel.control.planner_policy import PlannerPolicy
from worldmodel.control.planners.base import Planner
from worldmodel.control.policies import ActorPolicy
from worldmodel.errors import UserError
from worldmodel.experience.collector import Policy, RandomPolicy
from worldmodel.model.transitions import MemberChoice
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec


class Acting(ABC):
    """What chooses the actions, in collection or in evaluation."""

    @abstractmethod
    def name(self, actor_critic: ActorCritic | None) -> str:
        """What an evaluation is recorded under."""

    @abstractmethod
    def policy(
        self, world_model: WorldModel, actor_critic: ActorCritic | None, action: ActionSpec, explore: bool
    ) -> Policy:
        """A policy over these modules, to collect with (``explore``) or to evaluate.

        Raises:
            UserError: it needs an actor and there is none.
            ValueError: its settings do not go together.
        """

    def check(self, world_model: WorldModel, actor_critic: ActorCritic | None, action: ActionSpec) -> None:
        """Find out before anything starts whether it can act. Leaves torch's generator as it is.

        Raises:
            UserError, ValueError: it cannot.
        """
        self.policy(world_model, actor_critic, action, explore=False)


class ByActor(Acting):
    """The actor."""

    def name(self, actor_critic: ActorCritic | None) -> str:
        return "actor"

    def policy(
        self, world_model: WorldModel, actor_critic: ActorCritic | None, action: ActionSpec, explore: bool
    ) -> ActorPolicy:
        if actor_critic is None:
            raise UserError(
                "this run has no actor: give model.evaluate_with and model.collect_with a planner, "
                "such as --policy policy/cem"
            )
        return ActorPolicy(world_model, actor_critic.actor, action.size, explore)


class AtRandom(Acting):
    """Uniform actions."""

    def name(self, actor_critic: ActorCritic | None) -> str:
        return "random"

    def policy(
        self, world_model: WorldModel, actor_critic: ActorCritic | None, action: ActionSpec, explore: bool
    ) -> RandomPolicy:
        return RandomPolicy(action)


class ByPlanner(Acting):
    """A planner; where there is an actor it makes proposals, where there is a critic it values what lies beyond.

    Args:
        planner: searches sequences of actions. Where there is a critic, with the critic's discount.
        proposals: imagined rollouts of the actor that are offered to the planner.
        value: ask the critic what the end of a sequence is worth.
        noise: deviation of the noise on collected actions; for discrete ones the share that is random.
        every: plan anew after this many steps, and follow the plan in between.
        warm: begin where the last plan left off.
        keep: best sequences of the last plan that are offered again.
        choice: which ensemble member an imagined rollout follows; the mixture if None.
        label: begins the name in records; the planner's own if None.
    """

    def __init__(
        self,
        planner: Planner,
        proposals: int = 8,
        value: bool = True,
        noise: float = 0.3,
        every: int = 1,
        warm: bool = True,
        keep: int = 0,
        choice: MemberChoice | None = None,
        label: str | None = None,
    ) -> None:
        self.planner, self.proposals, self.value, self.noise = planner, proposals, value, noise
        self.every, self.warm, self.keep, self.choice = every, warm, keep, choice
        own = type(planner).__name__.removesuffix("Planner")
        self.label = label or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", own).lower()

    def name(self, actor_critic: ActorCritic | None) -> str:
        """Such as ``mppi+actor+value``: the planner, and what of the actor-critic it makes use of."""
        if actor_critic is None:
            return self.label
        return self.label + "+actor" * (self.proposals > 0) + "+value" * self.value

    def policy(
        self, world_model: WorldModel, actor_critic: ActorCritic | None, action: ActionSpec, explore: bool
    ) -> PlannerPolicy:
        if actor_critic is not None:
            self.planner.discount = actor_critic.discount
        return PlannerPolicy(
            world_model,
            self.planner,
            action,
            explore,
            actor_critic=actor_critic,
            proposals=self.proposals,
            value=self.value,
            noise=self.noise,
            every=self.every,
            warm=self.warm,
            keep=self.keep,
            choice=self.choice,
        )

    def check(self, world_model: WorldModel, actor_critic: ActorCritic | None, action: ActionSpec) -> None:
        policy = self.policy(world_model, actor_critic, action, explore=False)
        memory = policy.initial(1)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            policy.plan(memory.latent, memory.plan, memory.kept)  # only the planner knows which actions it can plan
