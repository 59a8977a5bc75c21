"""What chooses actions for real environments, from images and a memory of its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.control.actor_critic import Actor
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, Observation


class Memory(NamedTuple):
    """What a policy remembers between two moments."""

    latent: LatentState  # (N, ...)
    action: Tensor  # (N, A) the last one


class ActorPolicy:
    """Filter the images, then ask the actor.

    Args:
        world_model, actor: what to see and act with.
        explore: draw latents and actions (to collect), or take the most likely ones (to evaluate).
        action_size: size A of an action.
    """

    def __init__(self, world_model: WorldModel, actor: Actor, action_size: int, explore: bool) -> None:
        self.world_model, self.actor, self.action_size, self.explore = world_model, actor, action_size, explore

    def initial(self, n: int) -> Memory:
        latent = self.world_model.rssm.initial(n)
        return Memory(latent, latent.deter.new_zeros(n, self.action_size))

    @torch.no_grad()
    def __call__(self, observation: Observation, state: Memory) -> tuple[Tensor, Memory]:
        device = state.action.device
        observation = observation.map(lambda x: x.to(device))
        latent = self.world_model.filter(observation, state.action, state.latent, mode=not self.explore)
        actor, feature = self.actor, latent.feature
        action = actor.bound(actor.sample(feature)) if self.explore else actor.mode(feature)
        return action, Memory(latent, action)
