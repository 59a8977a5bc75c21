"""Actor and critic, trained on imagined rollouts. Legend in worldmodel/types.py; F feature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from encoders.ranges import Finite, Layers, NonNegativeFloat, PositiveInt, PositiveShare, Width
from worldmodel.control.actors import Actor, CategoricalActor, NormalActor
from worldmodel.control.critic import Critic
from worldmodel.control.imagine import frozen, imagine
from worldmodel.control.propagation import Propagation
from worldmodel.control.returns import ReturnScale, lambda_return, replayed_return
from worldmodel.control.truncation import NoTruncation, Truncation
from worldmodel.control.uncertainty_weight import UncertaintyWeight, as_weight
from worldmodel.model.world_model import Losses, Metrics, WorldModel
from worldmodel.types import ActionSpec, LatentState, SequenceBatch, Trajectory


class Objective(ABC):
    """How the actor's gradient is taken.

    Args:
        entropy: weight of the entropy bonus, in units of normalised return per nat.
    """

    differentiates: bool  # the rollout itself

    def __init__(self, entropy: float) -> None:
        self.entropy = entropy

    @abstractmethod
    def __call__(self, log_prob: Callable[[], Tensor], returns: Tensor, value: Tensor, scale: Tensor) -> Tensor:
        """Loss (B, H).

        Args:
            log_prob: gives (B, H), the log density of what the actor drew.
            returns, value: (B, H) of the states that were acted in.
            scale: () what returns are divided by.
        """


class ThroughModel(Objective):
    """Backpropagation through the model (Dreamer): the returns themselves are differentiated."""

    differentiates = True

    def __init__(self, entropy: NonNegativeFloat = 3e-3) -> None:
        super().__init__(entropy)

    def __call__(self, log_prob: Callable[[], Tensor], returns: Tensor, value: Tensor, scale: Tensor) -> Tensor:
        return -returns / scale


class PolicyGradient(Objective):
    """REINFORCE with the critic as baseline (DreamerV3, equation 11)."""

    differentiates = False

    def __init__(self, entropy: NonNegativeFloat = 3e-4) -> None:
        super().__init__(entropy)

    def __call__(self, log_prob: Callable[[], Tensor], returns: Tensor, value: Tensor, scale: Tensor) -> Tensor:
        return -log_prob() * ((returns - value) / scale).detach()


class ImaginedReturns(NamedTuple):
    """The actor's rollouts from N states, and what they came to. Legend: N rollouts, H horizon, F feature."""

    path: Trajectory[LatentState]  # each (N, ...)
    draws: Tensor  # (N, H, A) what the actor drew
    entropy: Tensor  # (N, H) of what it drew from
    value: Tensor  # (N, H + 1) values of all states
    seen: Tensor  # (H, N, F) features of the states that were acted in, without gradient; time first, as in memory
    returns: Tensor  # (N, H) their returns
    weight: Tensor  # (N, H) the discounted probability that they are reached and believed, without gradient
    scale: Tensor  # () what returns are divided by
    uncertainty_weight: Tensor  # () what a unit of uncertainty was worth


class ActorCritic(nn.Module):
    """Learn to act by imagining.

    Args:
        action: what an action is.
        feature_size: F.
        objective: gradients through the model, or policy gradient, and the weight of its entropy bonus.
        propagation: which ensemble member a rollout follows.
        critic: builds the critic from the feature size, a width and a number of layers.
        width, layers: of actor and critic.
        horizon: imagined steps H, of an action each.
        starts: rollouts begin in this many of a batch's states, drawn at random (all if there are fewer).
        discount: per environment frame, so that how far the agent looks does not depend on the action repeat.
        uncertainty_weight: added to the reward per unit of epistemic uncertainty; below 0 cautious, above 0 curious; or
            an object that says what is added. Unless it is 0 the critic learns from imagination alone: real rewards
            hold no such bonus.
        truncation: how far along a rollout the model is believed, in the returns and in the weights of the losses;
            always if None. With one the critic learns from imagination alone: real returns are not truncated.

    Raises:
        ValueError: the horizon or the number of starts is below 1.
    """

    weights: ClassVar[dict[str, float]] = {"actor": 1.0, "critic": 1.0, "replay_critic": 0.3}  # of losses, by default

    def __init__(
        self,
        action: ActionSpec,
        feature_size: int,
        objective: Objective,
        propagation: Propagation,
        critic: Callable[[int, int, int], Critic] = Critic,
        width: Width = 256,
        layers: Layers = 2,
        horizon: PositiveInt = 15,
        starts: PositiveInt = 128,
        discount: PositiveShare = 0.9985,
        uncertainty_weight: Finite | UncertaintyWeight = 0.0,
        truncation: Truncation | None = None,
    ) -> None:
        super().__init__()
        if horizon < 1 or starts < 1:
            raise ValueError(f"horizon and starts must be at least 1, got {horizon} and {starts}")
        kind = CategoricalActor if action.discrete else NormalActor
        self.actor: Actor = kind(feature_size, action.size, width, layers)
        self.critic = critic(feature_size, width, layers)
        self.scale = ReturnScale()
        self.objective, self.propagation = objective, propagation
        self.horizon, self.starts = horizon, starts
        self.discount = discount**action.repeat  # per step
        self.uncertainty_weight = as_weight(uncertainty_weight)
        self.truncation = truncation or NoTruncation()
        self.needs_uncertainty = self.uncertainty_weight.counts or not isinstance(self.truncation, NoTruncation)

    def loss(self, world_model: WorldModel, state: LatentState, batch: SequenceBatch) -> tuple[Losses, Metrics]:
        """Losses of actor and critic, each ending in a mean, from posterior states (B, T, ...) of a batch."""
        chosen, start = self._starts(state, batch)
        imagined = self._imagine(world_model, start, (~batch.is_terminal).flatten()[chosen])
        actor, metrics = self._actor_loss(world_model, imagined)
        returns = imagined.returns.detach()
        losses = {
            "actor": actor,
            "critic": imagined.weight * self.critic.loss(imagined.seen, returns.T).T,
            "replay_critic": self._replayed(state, batch, chosen, returns),
        }
        metrics |= {
            "return_imagined": returns.mean(),
            "value": imagined.value.detach().mean(),
            "return_scale": imagined.scale,
            "reward_imagined": imagined.path.reward.detach().mean(),
        }
        if self.needs_uncertainty:
            metrics["uncertainty_imagined"] = imagined.path.uncertainty.detach().mean()
            metrics["uncertainty_weight"] = imagined.uncertainty_weight
        return losses, metrics

    def _actor_loss(self, world_model: WorldModel, imagined: ImaginedReturns) -> tuple[Tensor, Metrics]:
        """The actor's loss, ending in a mean, and metrics that go with it."""
        # nothing was recorded on the way unless the rollout is differentiated
        again = None if self.objective.differentiates else self.actor.distribution(imagined.seen)
        entropy = imagined.entropy if again is None else again.entropy().T

        def log_prob() -> Tensor:
            distribution = self.actor.distribution(imagined.seen) if again is None else again
            return distribution.log_prob(imagined.draws.detach().transpose(0, 1)).T

        gain = self.objective(log_prob, imagined.returns, imagined.value[:, :-1], imagined.scale)
        return imagined.weight * (gain - self.objective.entropy * entropy), {"entropy": entropy.detach().mean()}

    def _imagine(self, world_model: WorldModel, start: LatentState, alive: Tensor) -> ImaginedReturns:
        """Roll the actor out from states (N, ...), of which those not ``alive`` (N,) are terminal."""
        draws: list[Tensor] = []
        entropies: list[Tensor] = []

        def act(s: LatentState) -> Tensor:
            distribution = self.actor.distribution(s.feature.detach())
            draws.append(distribution.rsample())
            entropies.append(distribution.entropy())
            return self.actor.bound(draws[-1])

        with frozen(world_model, self.critic), torch.set_grad_enabled(self.objective.differentiates):
            measure = self.needs_uncertainty
            path = imagine(world_model, act, start, self.horizon, propagation=self.propagation, uncertainty=measure)
            feature = path.state.map(lambda x: x.transpose(0, 1)).feature  # (H + 1, N, F), as it lies in memory
            value = self.critic(feature).transpose(0, 1)  # (N, H + 1)
            reward, discount = path.reward, self.discount * path.cont
            worth = self.uncertainty_weight(path.uncertainty)
            if self.needs_uncertainty:
                reward = reward + self.uncertainty_weight.added(path.uncertainty, worth)
                discount = discount * self.truncation(path.uncertainty)
            returns = lambda_return(reward, discount, value[:, 1:], self.critic.lam)  # (N, H)
        begins = alive.to(discount.dtype).unsqueeze(1)
        weight = torch.cat([begins, discount.detach()[:, :-1]], 1).cumprod(1)
        scale = self.scale.update(returns)
        seen, drawn, entropy = feature[:-1].detach(), torch.stack(draws, 1), torch.stack(entropies, 1)
        return ImaginedReturns(
            path=path,
            draws=drawn,
            entropy=entropy,
            value=value,
            seen=seen,
            returns=returns,
            weight=weight,
            scale=scale,
            uncertainty_weight=worth,
        )

    def _starts(self, state: LatentState, batch: SequenceBatch) -> tuple[Tensor, LatentState]:
        """Random posterior states (N, ...), without gradient, and where they stood in the flat batch."""
        flat = state.map(lambda x: x.detach().flatten(0, 1))
        total = len(flat[0])
        if self.starts >= total:  # all, in their order: a drawn one does not compile on a GPU (an error of torch 2.11)
            chosen = torch.arange(total, device=flat[0].device)
        else:
            chosen = torch.randperm(total, device=flat[0].device)[: self.starts]
        return chosen, flat.map(lambda x: x[chosen])

    def _replayed(self, state: LatentState, batch: SequenceBatch, chosen: Tensor, imagined: Tensor) -> Tensor:
        """The critic's loss on real sequences (B, T - 1), bootstrapped with the imagined return where there is one."""
        feature = state.feature.detach()  # (B, T, F)
        if self.needs_uncertainty:  # real returns hold no bonus and are not truncated: they would be another target
            return feature.new_zeros(feature.shape[0], feature.shape[1] - 1)
        with torch.no_grad():
            value = self.critic(feature)
            flat = value.flatten().index_put((chosen,), imagined[:, 0])
            value = flat.view_as(value)
        returns = replayed_return(batch, value, self.discount, self.critic.lam)
        return self.critic.loss(feature[:, :-1], returns)
