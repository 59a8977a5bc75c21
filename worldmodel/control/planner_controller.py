"""Model-predictive control. Legend: N environments, H horizon, A action, E elites that are kept."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from worldmodel.control.actor_critic import ActorCritic
from worldmodel.control.actors import Actor
from worldmodel.control.controller import Controller
from worldmodel.control.dynamics import LatentDynamics
from worldmodel.control.imagine import frozen, imagine
from worldmodel.control.planners.base import Planner, bound
from worldmodel.control.propagation import Propagation
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec, LatentState, Plan


class PlannerState(NamedTuple):
    """What a planning controller remembers between two moments."""

    plan: Tensor  # (N, H, A) what is left of the last plan, from now on
    elites: Tensor  # (N, E, H, A) what is left of its best sequences
    left: Tensor  # (N,) int64 steps that the plan is still followed; 0: plan anew


class PlannerController(Controller):
    """Plan, and take the first step of the plan. An actor, where there is one, proposes sequences; a critic, where
    there is one, says what lies beyond the horizon.

    Args:
        world_model, actor_critic, action: see Controller.
        planner: searches sequences of actions. Where there is a critic, with the critic's discount.
        proposals: imagined rollouts of the actor that are offered to the planner: one of its modes, the rest drawn.
        value: ask the critic what the end of a sequence is worth.
        noise: deviation of the noise on an explored action; for discrete ones the share that is random.
        every: plan anew after this many steps, and follow the plan in between.
        warm: begin where the last plan left off.
        elites: best sequences of the last plan that are offered again, E.
        propagation: which ensemble member an imagined rollout follows; the mixture if None.
        label: begins the name in records; the planner's own if None.

    Raises:
        ValueError: ``every`` is below 1 or beyond the planner's horizon, or a number is negative; or a label
            is no part of a file's name.
    """

    def __init__(
        self,
        world_model: WorldModel,
        actor_critic: ActorCritic | None,
        action: ActionSpec,
        planner: Planner,
        proposals: int = 8,
        value: bool = True,
        noise: float = 0.3,
        every: int = 1,
        warm: bool = True,
        elites: int = 0,
        propagation: Propagation | None = None,
        label: str | None = None,
    ) -> None:
        super().__init__(world_model, actor_critic, action)
        if not 1 <= every <= planner.horizon:
            raise ValueError(f"a plan of {planner.horizon} steps cannot be made anew every {every}")
        if proposals < 0 or noise < 0 or elites < 0:
            raise ValueError(f"proposals, noise and elites cannot be negative, got {proposals}, {noise} and {elites}")
        if label is not None and not re.fullmatch(r"[\w+.-]{1,40}", label):  # it becomes part of a file's name
            raise ValueError(f"a label has 1 to 40 letters, digits, dots, hyphens and underscores, got {label!r}")
        if actor_critic is not None:
            planner.discount = actor_critic.discount
        self.planner = planner
        self.actor = actor_critic.actor if actor_critic is not None and proposals else None
        self.critic = actor_critic.critic if actor_critic is not None and value else None
        self.proposals, self.noise, self.every, self.warm, self.elites = proposals, noise, every, warm, elites
        self.propagation = propagation
        self.dynamics = LatentDynamics(world_model, self.critic, propagation, uncertainty=planner.needs_uncertainty)
        own = type(planner).__name__.removesuffix("Planner")
        self.label = label or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", own).lower()

    @property
    def name(self) -> str:
        """Such as ``mppi+actor+value``: the planner, and what of the actor-critic it makes use of."""
        return self.label + "+actor" * (self.actor is not None) + "+value" * (self.critic is not None)

    def initial(self, n: int) -> PlannerState:
        zeros = self.world_model.rssm.from_stoch.weight.new_zeros
        sequence = (self.planner.horizon, self.action.size)
        left = zeros(n, dtype=torch.int64)
        return PlannerState(zeros(n, *sequence), zeros(n, self.elites, *sequence), left)

    @torch.no_grad()
    def act(self, state: LatentState, memory: PlannerState, explore: bool = False) -> tuple[Tensor, PlannerState]:
        plan, elites, due = memory.plan.clone(), memory.elites.clone(), memory.left == 0
        action = bound(plan[:, 0], self.action)
        if due.any():  # those that are not follow their plans, whatever the others do
            made = self.plan(state.map(lambda x: x[due]), plan[due], elites[due])
            action[due], plan[due], elites[due] = made.action, made.mean, self._best(made)
        left = torch.where(due, self.every, memory.left) - 1
        if explore:
            action = self._disturb(action)
        return action, PlannerState(_later(plan), _later(elites), left)

    def plan(self, state: LatentState, plan: Tensor, elites: Tensor) -> Plan:
        """Plan from B states (B, ...), given what is left of their last plans (B, H, A) and best sequences.

        Raises:
            ValueError: the planner cannot plan actions of this kind.
        """
        offered = elites if self.actor is None else torch.cat([elites, self._propose(self.actor, state)], 1)
        modules = (self.world_model, self.critic) if self.critic is not None else (self.world_model,)
        with frozen(*modules):  # gradients are for the actions only
            return self.planner.plan(
                self.dynamics,
                state.feature.to(plan.dtype),
                self.action,
                warm=plan if self.warm else None,
                proposals=offered if offered.shape[1] else None,
            )

    def _propose(self, actor: Actor, state: LatentState) -> Tensor:
        """Sequences (B, N, H, A) that the actor imagines: the first of its modes, the others drawn."""
        count = self.proposals
        start = state.map(lambda x: repeat(x, "b ... -> (b n) ...", n=count))
        surest = torch.arange(len(start.deter), device=start.deter.device).unsqueeze(1) % count == 0

        def act(state: LatentState) -> Tensor:
            feature = state.feature
            return torch.where(surest, actor.mode(feature), actor.bound(actor.sample(feature)))

        horizon, propagation = self.planner.horizon, self.propagation
        path = imagine(self.world_model, act, start, horizon, propagation=propagation, mode=True, uncertainty=False)
        return rearrange(path.action, "(b n) h a -> b n h a", n=count)

    def _best(self, made: Plan) -> Tensor:
        """The best sequences (B, E, H, A) of a plan; its mean fills up where it has fewer."""
        some = torch.cat([made.elites[:, : self.elites], made.mean.unsqueeze(1)], 1)
        return some[:, torch.arange(self.elites, device=some.device).clamp(max=some.shape[1] - 1)]

    def _disturb(self, action: Tensor) -> Tensor:
        if not self.action.discrete:
            return (action + self.noise * torch.randn_like(action)).clamp(-1, 1)
        other = torch.randint(self.action.size, action.shape[:1], device=action.device)
        random = torch.rand(len(action), 1, device=action.device) < self.noise
        return torch.where(random, F.one_hot(other, self.action.size).to(action.dtype), action)


def _later(sequences: Tensor) -> Tensor:
    """Sequences (*B, H, A) one step later, with zeros at the end."""
    return F.pad(sequences[..., 1:, :], (0, 0, 0, 1))
