"""A world model as planners see it. Legend: M rollouts, H horizon, D deter, Z latent, X = D + Z, A action, P params."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.control.actor_critic import Critic
from worldmodel.control.planners.base import Dynamics, Rollout, Step
from worldmodel.model.transitions import MemberChoice, Mixture
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState


class LatentDynamics(Dynamics):
    """States are features: memory and latent side by side, (M, D + Z), as ``LatentState.feature`` gives them.

    Args:
        world_model: what moves them.
        critic: what they are worth beyond the horizon; nothing if None.
        choice: which member a rollout follows; the mixture if None.
        mode: take the most likely latents, so that sequences of actions are compared and not draws.
        uncertainty: measure the uncertainty; zero if not, which is faster.
    """

    def __init__(
        self,
        world_model: WorldModel,
        critic: Critic | None = None,
        choice: MemberChoice | None = None,
        mode: bool = True,
        uncertainty: bool = True,
    ) -> None:
        self.world_model, self.critic, self.choice = world_model, critic, choice or Mixture()
        self.mode, self.uncertainty = mode, uncertainty

    def step(self, state: Tensor, action: Tensor) -> Step:
        latent, prior = self._move(self._latent(state), action, self._drawn(state))
        feature = latent.feature
        return Step(feature, self.world_model.reward(feature), self.world_model.cont(feature), self._uncertainty(prior))

    def rollout(self, state: Tensor, actions: Tensor) -> Rollout:
        drawn, latent = self._drawn(state), self._latent(state)
        features, measured = [], []
        for action in actions.unbind(1):
            latent, prior = self._move(latent, action, drawn)
            features.append(latent.feature)
            measured.append(self._uncertainty(prior))
        after = torch.stack(features, 1)  # (M, H, X)
        path = torch.cat([state.unsqueeze(1), after], 1)
        return Rollout(path, self.world_model.reward(after), self.world_model.cont(after), torch.stack(measured, 1))

    def value(self, state: Tensor) -> Tensor:
        return super().value(state) if self.critic is None else self.critic(state)

    def renew(self) -> None:
        self.world_model.rssm.transition.draw()

    def _drawn(self, state: Tensor) -> Tensor | None:
        return self.choice.start(self.world_model.rssm.transition.members, state.shape[:-1], state.device)

    def _latent(self, state: Tensor) -> LatentState:
        latents = self.world_model.latents
        deter, stoch = state.split([state.shape[-1] - latents.size, latents.size], -1)
        # nothing reads the parameters of a state that is left behind
        return LatentState(deter, stoch, state.new_zeros(()).expand(*state.shape[:-1], latents.param_size))

    def _move(self, latent: LatentState, action: Tensor, drawn: Tensor | None) -> tuple[LatentState, Tensor]:
        """The next state (M, ...) and all members' priors of it (K, M, P)."""
        rssm = self.world_model.rssm
        deter, prior = rssm.img_step(latent, action)
        member = self.choice.pick(len(prior), deter.shape[:-1], deter.device, drawn)
        return rssm.sample_state(deter, prior, member, self.mode), prior

    def _uncertainty(self, prior: Tensor) -> Tensor:
        return self.world_model.uncertainty(prior) if self.uncertainty else prior.new_zeros(prior.shape[1:-1])
