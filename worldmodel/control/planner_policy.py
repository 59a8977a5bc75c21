"""Model-predictive control of real environments. Legend: N environments, H horizon, A action, E kept sequences."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from worldmodel.control.actor_critic import ActorCritic
from worldmodel.control.actors import Actor
from worldmodel.control.dynamics import LatentDynamics
from worldmodel.control.imagine import frozen, imagine
from worldmodel.control.planners.base import Planner, bound
from worldmodel.control.truncation import NoTruncation
from worldmodel.model.transitions import MemberChoice, Mixture
from worldmodel.model.world_model import WorldModel
from worldmodel.types import ActionSpec, LatentState, Observation, Plan


class PlannerState(NamedTuple):
    """What a planning policy remembers between two moments."""

    latent: LatentState  # (N, ...)
    action: Tensor  # (N, A) the last one
    plan: Tensor  # (N, H, A) what is left of the last plan, from now on
    kept: Tensor  # (N, E, H, A) what is left of its best sequences
    age: Tensor  # (N,) int64 steps since it was made


class PlannerPolicy:
    """Filter the images, plan, take the first step of the plan.

    Args:
        world_model, planner: what to see with, and what to plan with.
        action: what an action is.
        explore: draw latents and disturb actions (to collect), or take the most likely ones (to evaluate).
        actor_critic: its actor proposes sequences, its critic says what the end of one is worth; neither if None.
        proposals: imagined rollouts of the actor that are offered to the planner: one of its modes, the rest drawn.
        value: ask the critic.
        noise: deviation of the noise on an explored action; for discrete ones the share that is random.
        every: plan anew after this many steps, and follow the plan in between.
        warm: begin where the last plan left off.
        keep: best sequences of the last plan that are offered again, E.
        choice: which ensemble member a rollout follows; the mixture if None.

    Raises:
        ValueError: ``every`` is below 1 or beyond the planner's horizon, or a number is negative.
    """

    def __init__(
        self,
        world_model: WorldModel,
        planner: Planner,
        action: ActionSpec,
        explore: bool,
        actor_critic: ActorCritic | None = None,
        proposals: int = 8,
        value: bool = True,
        noise: float = 0.3,
        every: int = 1,
        warm: bool = True,
        keep: int = 0,
        choice: MemberChoice | None = None,
    ) -> None:
        if not 1 <= every <= planner.horizon:
            raise ValueError(f"a plan of {planner.horizon} steps cannot be made anew every {every}")
        if proposals < 0 or noise < 0 or keep < 0:
            raise ValueError(f"proposals, noise and keep cannot be negative, got {proposals}, {noise} and {keep}")
        self.world_model, self.planner, self.action, self.explore = world_model, planner, action, explore
        self.actor = actor_critic.actor if actor_critic is not None and proposals else None
        self.critic = actor_critic.critic if actor_critic is not None and value else None
        self.proposals, self.noise, self.every, self.warm, self.keep = proposals, noise, every, warm, keep
        self.choice = choice or Mixture()
        uncertainty = planner.uncertainty_weight != 0 or not isinstance(planner.truncation, NoTruncation)
        self.dynamics = LatentDynamics(world_model, self.critic, self.choice, uncertainty=uncertainty)

    def initial(self, n: int) -> PlannerState:
        latent = self.world_model.rssm.initial(n)
        action = latent.deter.new_zeros(n, self.action.size)
        plan = action.new_zeros(n, self.planner.horizon, self.action.size)
        kept = plan.new_zeros(n, self.keep, *plan.shape[1:])
        return PlannerState(latent, action, plan, kept, torch.zeros(n, dtype=torch.int64, device=action.device))

    @torch.no_grad()
    def __call__(self, observation: Observation, state: PlannerState) -> tuple[Tensor, PlannerState]:
        device = state.action.device
        observation = observation.map(lambda x: x.to(device))
        latent = self.world_model.filter(observation, state.action, state.latent, mode=not self.explore)
        known = (~observation.is_first).to(state.plan.dtype)
        plan, kept = state.plan * known[:, None, None], state.kept * known[:, None, None, None]
        action = bound(plan[:, 0], self.action)
        due = observation.is_first | (state.age >= self.every)
        if due.any():  # those that are not follow their plans, whatever the others do
            made = self.plan(LatentState(*(x[due] for x in latent)), plan[due], kept[due])
            action[due], plan[due], kept[due] = made.action, made.mean, self._best(made)
        age = torch.where(due, 0, state.age) + 1
        if self.explore:
            action = self._disturb(action)
        return action, PlannerState(latent, action, later(plan), later(kept), age)

    def plan(self, latent: LatentState, plan: Tensor, kept: Tensor) -> Plan:
        """Plan from B states (B, ...), given what is left of their last plans (B, H, A) and best sequences.

        Raises:
            ValueError: the planner cannot plan actions of this kind.
        """
        offered = kept if self.actor is None else torch.cat([kept, self._propose(self.actor, latent)], 1)
        modules = (self.world_model, self.critic) if self.critic is not None else (self.world_model,)
        with frozen(*modules):  # gradients are for the actions only
            return self.planner.plan(
                self.dynamics,
                latent.feature.to(plan.dtype),
                self.action,
                warm=plan if self.warm else None,
                proposals=offered if offered.shape[1] else None,
            )

    def _propose(self, actor: Actor, latent: LatentState) -> Tensor:
        """Sequences (B, N, H, A) that the actor imagines: the first of its modes, the others drawn."""
        count = self.proposals
        start = LatentState(*(repeat(x, "b ... -> (b n) ...", n=count) for x in latent))
        surest = torch.arange(len(start.deter), device=start.deter.device).unsqueeze(1) % count == 0

        def act(state: LatentState) -> Tensor:
            feature = state.feature
            return torch.where(surest, actor.mode(feature), actor.bound(actor.sample(feature)))

        path = imagine(self.world_model, act, start, self.planner.horizon, self.choice, mode=True, uncertainty=False)
        return rearrange(path.action, "(b n) h a -> b n h a", n=count)

    def _best(self, made: Plan) -> Tensor:
        """The best sequences (B, E, H, A) of a plan; its mean fills up where it has fewer."""
        some = torch.cat([made.elites[:, : self.keep], made.mean.unsqueeze(1)], 1)
        return some[:, torch.arange(self.keep, device=some.device).clamp(max=some.shape[1] - 1)]

    def _disturb(self, action: Tensor) -> Tensor:
        if not self.action.discrete:
            return (action + self.noise * torch.randn_like(action)).clamp(-1, 1)
        other = torch.randint(self.action.size, action.shape[:1], device=action.device)
        random = torch.rand(len(action), 1, device=action.device) < self.noise
        return torch.where(random, F.one_hot(other, self.action.size).to(action.dtype), action)


def later(sequences: Tensor) -> Tensor:
    """Sequences (*B, H, A) one step later, with zeros at the end."""
    return F.pad(sequences[..., 1:, :], (0, 0, 0, 1))
