"""An actor that is held to what the data did. Legend in worldmodel/types.py; F feature."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from worldmodel.control.actor_critic import ActorCritic
from worldmodel.control.returns import follows, replayed_return
from worldmodel.model.world_model import Losses, Metrics, WorldModel
from worldmodel.types import LatentState, SequenceBatch


class Cloner(ActorCritic):
    """Learn to act by imagining, and stay near the data's own actions where those were good.

    To the losses of ``ActorCritic`` comes

        cloning: -1[R_t > v(s_t)] log pi(a_t | s_t)

    of the data's actions a_t in the posterior states s_t, where R_t is the lambda return that followed: the critic's
    values filter what is worth doing again (critic-regularised regression, Wang et al. 2020, with its indicator). The
    weight of ``cloning`` beside that of ``actor`` says how near to stay (as in TD3+BC, Fujimoto and Gu 2021: both are
    of the order of one, for returns are divided by their range). For learning from data alone, where nobody goes and
    looks what the actor's own actions lead to.
    """

    weights: ClassVar[dict[str, float]] = {**ActorCritic.weights, "cloning": 1.0}

    def loss(self, world_model: WorldModel, state: LatentState, batch: SequenceBatch) -> tuple[Losses, Metrics]:
        """Those of ActorCritic, and ``cloning`` (B, T - 1)."""
        losses, metrics = super().loss(world_model, state, batch)
        feature = state.feature.detach()  # (B, T, F)
        with torch.no_grad():
            value = self.critic(feature)
            better = replayed_return(batch, value, self.discount, self.critic.lam) > value[:, :-1]
        chosen = (better & follows(batch)).float()
        losses["cloning"] = -chosen * self._log_prob(feature[:, :-1], batch.action[:, 1:])
        return losses, metrics | {"cloned": chosen.mean()}

    def _log_prob(self, feature: Tensor, action: Tensor) -> Tensor:
        """Log density (B, T - 1) of actions (B, T - 1, A) in states (B, T - 1, F)."""
        return self.actor.distribution(feature).log_prob(action.float())
