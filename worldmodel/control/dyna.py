"""Actor and critics that learn off policy from real and imagined transitions. Legend in worldmodel/types.py.

F feature, K critics, N transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from encoders.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, Share
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.actors import Actor
from worldmodel.control.critic import Critic
from worldmodel.control.imagine import frozen, imagine
from worldmodel.control.propagation import Propagation
from worldmodel.control.returns import follows, lambda_return, replayed_return
from worldmodel.model.world_model import Losses, Metrics, WorldModel
from worldmodel.types import ActionSpec, LatentState, SequenceBatch


class Transitions(NamedTuple):
    """What was done in N states, and what it is worth; without gradient."""

    feature: Tensor  # (N, F)
    action: Tensor  # (N, A) that was taken there
    returns: Tensor  # (N,) that followed
    weight: Tensor  # (N,) in the losses; 0 where these are no neighbours


class ActionCritics(nn.Module):
    """q(s, a) by K critics, of which the least is believed (clipped double Q, Fujimoto et al. 2018).

    As a critic of states, for planners, the value is that of what the actor would do.

    Args:
        each: critics of a feature and an action, one after the other, (*B, F + A).
        actor: whose actions they value; not a part of it.
    """

    def __init__(self, each: Sequence[Critic], actor: Actor) -> None:
        super().__init__()
        self.each = nn.ModuleList(each)
        self._actor = (actor,)  # in a tuple, or its parameters would be the critics'

    def forward(self, feature: Tensor) -> Tensor:
        """Value (*B,) of features (*B, F) under the actor."""
        return self.value(feature, self._actor[0].mode(feature))

    def value(self, feature: Tensor, action: Tensor) -> Tensor:
        """The least of all critics' values (*B,)."""
        return self._least(feature, action, target=False)

    def target(self, feature: Tensor, action: Tensor) -> Tensor:
        """The same by the target critics."""
        return self._least(feature, action, target=True)

    def _least(self, feature: Tensor, action: Tensor, target: bool) -> Tensor:
        known = torch.cat([feature, action.to(feature.dtype)], -1)
        return torch.stack([c.twohot.mean((c.target if target else c.net)(known)) for c in self._critics]).amin(0)

    def loss(self, feature: Tensor, action: Tensor, returns: Tensor) -> Tensor:
        """Mean over the critics of the cross-entropy to the returns (N,), (N,)."""
        known = torch.cat([feature, action.to(feature.dtype)], -1)
        return torch.stack([c.twohot.loss(c.net(known), returns) for c in self._critics]).mean(0)

    def update_target(self) -> None:
        """Move the target critics a little towards the critics; after every update."""
        for critic in self._critics:
            critic.update_target()

    @property
    def _critics(self) -> list[Critic]:
        return list(self.each)  # type: ignore[arg-type]


class Dyna(ActorCritic):
    """A model-free actor-critic in the latent space that learns from real and imagined transitions (Dyna, Sutton 1991).

    Real ones are neighbours in the replayed sequences, between posterior states; imagined ones are what the actor
    does in the model, from posterior states of the same batch. The losses are

        (1 - imagined_share) * mean over real transitions + imagined_share * mean over imagined ones:

    at 0 nothing is imagined, at 1 nothing real is learned from. A small share, 0.05, is what keeps values right where
    the replay has not tried what the actor would do (MAD-TD, Voelcker et al. 2025). Critics learn lambda returns along
    sequences and rollouts, uncorrected where others acted (Peng's Q(lambda), Kozuno et al. 2021), bootstrapped with the
    least of the target critics' values; the actor climbs the least of the critics', with an entropy bonus that is in no
    value (SAC, Haarnoja et al. 2018, but for that). The model may be wrong at first: the share is 0 until
    ``imagined_after`` updates are made.

    ``uncertainty_weight`` counts in the rewards of imagined transitions; ``truncation`` weighs those transitions in
    the losses, along a rollout, and ends no value.

    Args:
        action, feature_size, propagation: see ActorCritic.
        imagined_share: what of the losses is that of imagined transitions.
        imagined_after: updates before anything is imagined.
        entropy: weight of the entropy bonus, in units of normalised value per nat.
        lam: lambda of the returns; 0 is one-step.
        critics: K.
        critic: builds each from the size of feature and action, a width and a number of layers.
        settings: further settings of ActorCritic; ``horizon`` is that of an imagined rollout, each step a transition.

    Raises:
        ValueError: actions are discrete.
    """

    weights: ClassVar[dict[str, float]] = {"actor": 1.0, "critic": 1.0}
    critic: ActionCritics  # type: ignore[assignment]
    learned: Tensor

    def __init__(
        self,
        action: ActionSpec,
        feature_size: int,
        propagation: Propagation,
        imagined_share: Share = 0.05,
        imagined_after: NonNegativeInt = 500,
        entropy: NonNegativeFloat = 3e-3,
        lam: Share = 0.8,
        critics: PositiveInt = 2,
        critic: Callable[[int, int, int], Critic] = Critic,
        **settings: Any,
    ) -> None:
        if action.discrete:
            raise ValueError("Dyna's critics value continuous actions: for discrete ones take policy/policy_gradient")

        def several(size: int, width: int, layers: int) -> Any:
            return ActionCritics([critic(size + action.size, width, layers) for _ in range(critics)], self.actor)

        super().__init__(action, feature_size, ThroughModel(entropy), propagation, critic=several, **settings)
        self.imagined_share, self.imagined_after, self.lam = imagined_share, imagined_after, lam
        self.register_buffer("learned", torch.zeros((), dtype=torch.int64))  # updates

    def loss(self, world_model: WorldModel, state: LatentState, batch: SequenceBatch) -> tuple[Losses, Metrics]:
        """Losses of actor and critics (N,), from posterior states (B, T, ...) of a batch."""
        share = torch.where(self.learned >= self.imagined_after, self.imagined_share, 0.0)
        self.learned += self.training
        parts: list[tuple[Tensor, Transitions]] = []
        metrics: Metrics = {"imagined_share": share}
        if self.imagined_share < 1 or self.imagined_after:
            parts.append((1 - share, self._real(state, batch)))
        if self.imagined_share > 0:
            imagined, more = self._imagined(world_model, state, batch)
            parts.append((share, imagined))
            metrics |= more
        seen = _mixed(parts)
        actor, more = self._improve(seen)
        critic = seen.weight * self.critic.loss(seen.feature, seen.action, seen.returns)
        return {"actor": seen.weight * actor, "critic": critic}, metrics | more

    def _improve(self, seen: Transitions) -> tuple[Tensor, Metrics]:
        """The actor's loss (N,) in the states that transitions begin in."""
        distribution = self.actor.distribution(seen.feature)
        with frozen(self.critic):
            value = self.critic.value(seen.feature, self.actor.bound(distribution.rsample()))
        scale, entropy = self.scale.update(value), distribution.entropy()
        metrics = {"value": value.detach().mean(), "return_scale": scale, "entropy": entropy.detach().mean()}
        return -value / scale - self.objective.entropy * entropy, metrics

    @torch.no_grad()
    def _real(self, state: LatentState, batch: SequenceBatch) -> Transitions:
        """Neighbours of the sequences, N = B (T - 1)."""
        feature = state.feature.detach()
        returns = replayed_return(batch, self._target(feature), self.discount, self.lam)
        weight = follows(batch).to(returns.dtype)
        found = Transitions(feature[:, :-1], batch.action[:, 1:], returns, weight / weight.mean().clamp_min(1e-6))
        return Transitions._make(x.flatten(0, 1) for x in found)

    @torch.no_grad()
    def _imagined(
        self, world_model: WorldModel, state: LatentState, batch: SequenceBatch
    ) -> tuple[Transitions, Metrics]:
        """Steps of the actor's rollouts, N = starts * horizon."""
        chosen, start = self._starts(state, batch)

        def act(s: LatentState) -> Tensor:
            return self.actor.bound(self.actor.sample(s.feature))

        measure = self.needs_uncertainty
        path = imagine(world_model, act, start, self.horizon, propagation=self.propagation, uncertainty=measure)
        reward, metrics = path.reward, {"reward_imagined": path.reward.mean()}
        alive = (~batch.is_terminal).flatten()[chosen].to(reward.dtype).unsqueeze(1)
        weight = torch.cat([alive, path.cont[:, :-1]], 1).cumprod(1)  # (N, H): that it comes so far
        if measure:
            worth = self.uncertainty_weight(path.uncertainty)
            reward = reward + worth * path.uncertainty
            weight = weight * self.truncation(path.uncertainty).cumprod(1)
            metrics |= {"uncertainty_imagined": path.uncertainty.mean(), "uncertainty_weight": worth}
        feature = path.state.feature  # (N, H + 1, F)
        returns = lambda_return(reward, self.discount * path.cont, self._target(feature)[:, 1:], self.lam)
        found = Transitions(feature[:, :-1], path.action, returns, weight)
        return Transitions._make(x.flatten(0, 1) for x in found), metrics

    def _target(self, feature: Tensor) -> Tensor:
        """What states (*B, F) are worth to the target critics under what the actor draws there, (*B,)."""
        return self.critic.target(feature, self.actor.bound(self.actor.sample(feature)))


def _mixed(parts: Sequence[tuple[Tensor, Transitions]]) -> Transitions:
    """All transitions as one, weighted so that the mean over all is the sum of the shares times each part's mean."""
    total = sum(len(part.returns) for _, part in parts)
    weighted = [part._replace(weight=part.weight * share * (total / len(part.returns))) for share, part in parts]
    return Transitions._make(torch.cat(x) for x in zip(*weighted, strict=True))
