"""An actor that is held to what the data did. Legend in worldmodel/types.py; F feature."""

from __future__ import annotations

from typing import ClassVar

import torch

from worldmodel.control.actor_critic import ActorCritic
from worldmodel.control.returns import follows, replayed_return
from worldmodel.model.world_model import Losses, Metrics, WorldModel
from worldmodel.types import LatentState, SequenceBatch


class Cloner(ActorCritic):
    """Learn to act by imagining, and stay near the data's own actions where those were good.

    To the losses of ``ActorCritic`` comes

        cloning: -w_t log pi(a_t | s_t), w_t = max(R_t - v(s_t), 0) over its mean,

    of the data's actions a_t in the posterior states s_t, where R_t is the lambda return that followed: the better it
    was than what the critic expected, the more it is worth doing again (self-imitation, Oh et al. 2018, equation 2).
    The weight of ``cloning`` beside that of ``actor`` says how near to stay (as in TD3+BC, Fujimoto and Gu 2021: both
    are of the order of one, for returns are divided by their range). For learning from data alone, where nobody goes
    and looks what the actor's own actions lead to.
    """

    weights: ClassVar[dict[str, float]] = {**ActorCritic.weights, "cloning": 1.0}

    def loss(self, world_model: WorldModel, state: LatentState, batch: SequenceBatch) -> tuple[Losses, Metrics]:
        """Those of ActorCritic, and ``cloning`` (B, T - 1)."""
        losses, metrics = super().loss(world_model, state, batch)
        feature = state.feature.detach()  # (B, T, F)
        with torch.no_grad():
            value = self.critic(feature)
            returns = replayed_return(batch, value, self.discount, self.critic.lam)
            better = (returns - value[:, :-1]).clamp_min(0) * follows(batch)  # (B, T - 1)
        weight = better / better.mean().clamp_min(1e-6)
        log_prob = self.actor.distribution(feature[:, :-1]).log_prob(batch.action[:, 1:].float())
        losses["cloning"] = -weight * log_prob
        return losses, metrics | {"cloned": (better > 0).float().mean()}
