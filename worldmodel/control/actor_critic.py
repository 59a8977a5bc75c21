"""Actor and critic, trained on imagined rollouts. Legend in worldmodel/types.py; F feature."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, OneHotCategoricalStraightThrough

from worldmodel.control.imagine import frozen, imagine
from worldmodel.control.returns import ReturnScale, lambda_return
from worldmodel.model.distributions import TwoHot
from worldmodel.model.layers import MLP
from worldmodel.model.transitions import MemberChoice
from worldmodel.model.world_model import Losses, Metrics, WorldModel
from worldmodel.types import ActionSpec, LatentState, SequenceBatch


class Actor(nn.Module, ABC):
    """pi(a|s). What is drawn has a density; ``bound`` makes it an action that model and environment take."""

    net: MLP

    @abstractmethod
    def distribution(self, feature: Tensor) -> Distribution:
        """Over draws (*B, A), from features (*B, F); ``rsample`` keeps a gradient path to the parameters."""

    @abstractmethod
    def mode(self, feature: Tensor) -> Tensor:
        """The most likely action (*B, A)."""

    def sample(self, feature: Tensor) -> Tensor:
        """A draw (*B, A)."""
        return self.distribution(feature).rsample()

    def bound(self, draw: Tensor) -> Tensor:
        """A draw (*B, A) as an action in its limits, with the draw's gradient."""
        return draw


class NormalActor(Actor):
    """Continuous actions: a normal with mean in (-1, 1) and deviation in [min_std, max_std], clipped to [-1, 1].

    A squashed normal with its exact entropy saturates; this one does not.
    """

    def __init__(
        self, feature_size: int, action_size: int, width: int, layers: int, min_std: float = 0.1, max_std: float = 1.0
    ) -> None:
        super().__init__()
        self.net = MLP(feature_size, 2 * action_size, width, layers, zero=True)
        self.min_std, self.max_std = min_std, max_std

    def distribution(self, feature: Tensor) -> Distribution:
        mean, raw = self.net(feature).chunk(2, -1)
        std = self.min_std + (self.max_std - self.min_std) * torch.sigmoid(raw + 2)
        return Independent(Normal(mean.tanh(), std, validate_args=False), 1, validate_args=False)

    def bound(self, draw: Tensor) -> Tensor:
        return draw + (draw.clamp(-1, 1) - draw).detach()

    def mode(self, feature: Tensor) -> Tensor:
        return self.distribution(feature).mean


class CategoricalActor(Actor):
    """Discrete actions: one-hot, 1% uniform mixed in, straight-through gradients."""

    def __init__(self, feature_size: int, action_size: int, width: int, layers: int, unimix: float = 0.01) -> None:
        super().__init__()
        self.net = MLP(feature_size, action_size, width, layers, zero=True)
        self.unimix = unimix

    def distribution(self, feature: Tensor) -> Distribution:
        probs = self.net(feature).softmax(-1)
        probs = (1 - self.unimix) * probs + self.unimix / probs.shape[-1]
        return OneHotCategoricalStraightThrough(probs=probs, validate_args=False)

    def mode(self, feature: Tensor) -> Tensor:
        return self.distribution(feature).mode


class Critic(nn.Module):
    """v(s): two-hot over exponential bins, starting at zero, with a slow copy of itself (DreamerV3)."""

    def __init__(self, feature_size: int, width: int, layers: int, bins: int, limit: float, slow_rate: float) -> None:
        super().__init__()
        self.net = MLP(feature_size, bins, width, layers, zero=True)
        self.slow = copy.deepcopy(self.net).requires_grad_(False)
        self.twohot = TwoHot(bins, limit)
        self.slow_rate = slow_rate

    def forward(self, feature: Tensor) -> Tensor:
        """Value (*B,) of features (*B, F)."""
        return self.twohot.mean(self.net(feature))

    def loss(self, feature: Tensor, returns: Tensor) -> Tensor:
        """Cross-entropy to the returns (*B,), and to the slow copy's values so that it does not run away."""
        logits = self.net(feature)
        with torch.no_grad():
            slow = self.twohot.mean(self.slow(feature))
        return self.twohot.loss(logits, returns) + self.twohot.loss(logits, slow)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the slow copy a little towards the critic; after every update."""
        torch._foreach_lerp_(list(self.slow.parameters()), list(self.net.parameters()), self.slow_rate)


class Objective(ABC):
    """How the actor's gradient is taken."""

    differentiates: bool  # the rollout itself

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

    def __call__(self, log_prob: Callable[[], Tensor], returns: Tensor, value: Tensor, scale: Tensor) -> Tensor:
        return -returns / scale


class PolicyGradient(Objective):
    """REINFORCE with the critic as baseline (DreamerV3, equation 11)."""

    differentiates = False

    def __call__(self, log_prob: Callable[[], Tensor], returns: Tensor, value: Tensor, scale: Tensor) -> Tensor:
        return -log_prob() * ((returns - value) / scale).detach()


class ActorCritic(nn.Module):
    """Learn to act by imagining.

    Args:
        action: what an action is.
        feature_size: F.
        objective: gradients through the model, or policy gradient.
        choice: which ensemble member a rollout follows.
        width, layers: of actor and critic.
        bins, limit: two-hot bins of the value, the outermost at +-symexp(limit).
        horizon: imagined steps H.
        starts: rollouts begin in this many of a batch's states, drawn at random (all if there are fewer).
        discount: per agent step.
        lam: lambda of the returns.
        entropy: weight of the entropy bonus, in units of normalised return per nat.
        slow_rate: share of the critic that its slow copy takes over at each update.
        uncertainty_weight: added to the reward per unit of epistemic uncertainty; below 0 cautious, above 0 curious.
    """

    def __init__(
        self,
        action: ActionSpec,
        feature_size: int,
        objective: Objective,
        choice: MemberChoice,
        width: int = 256,
        layers: int = 2,
        bins: int = 63,
        limit: float = 8.0,
        horizon: int = 15,
        starts: int = 128,
        discount: float = 0.997,
        lam: float = 0.95,
        entropy: float = 3e-4,
        slow_rate: float = 0.02,
        uncertainty_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if horizon < 1 or starts < 1:
            raise ValueError(f"horizon and starts must be at least 1, got {horizon} and {starts}")
        kind = CategoricalActor if action.discrete else NormalActor
        self.actor: Actor = kind(feature_size, action.size, width, layers)
        self.critic = Critic(feature_size, width, layers, bins, limit, slow_rate)
        self.scale = ReturnScale()
        self.objective, self.choice = objective, choice
        self.horizon, self.starts, self.discount, self.lam, self.entropy = horizon, starts, discount, lam, entropy
        self.uncertainty_weight = uncertainty_weight

    def loss(self, world_model: WorldModel, state: LatentState, batch: SequenceBatch) -> tuple[Losses, Metrics]:
        """Losses of actor and critic, each ending in a mean, from posterior states (B, T, ...) of a batch."""
        chosen, start = self._starts(state, batch)
        draws: list[Tensor] = []
        entropies: list[Tensor] = []

        def act(s: LatentState) -> Tensor:
            distribution = self.actor.distribution(s.feature.detach())
            draws.append(distribution.rsample())
            entropies.append(distribution.entropy())
            return self.actor.bound(draws[-1])

        with frozen(world_model, self.critic), torch.set_grad_enabled(self.objective.differentiates):
            doubt = self.uncertainty_weight != 0
            path = imagine(world_model, act, start, self.horizon, self.choice, doubt=doubt)
            feature = path.state.feature  # (N, H + 1, F)
            value = self.critic(feature)  # (N, H + 1)
            reward = path.reward + self.uncertainty_weight * path.uncertainty
            discount = self.discount * path.cont
            returns = lambda_return(reward, discount, value[:, 1:], self.lam)  # (N, H)
        seen = feature[:, :-1].detach()
        alive = (~batch.is_terminal).flatten()[chosen].to(discount.dtype).unsqueeze(1)
        weight = torch.cat([alive, discount.detach()[:, :-1]], 1).cumprod(1)
        scale = self.scale.update(returns)
        entropy = torch.stack(entropies, 1)
        if not self.objective.differentiates:  # nothing was recorded on the way, and the density is wanted too
            distribution = self.actor.distribution(seen)
            entropy = distribution.entropy()
        gain = self.objective(
            lambda: distribution.log_prob(torch.stack(draws, 1).detach()), returns, value[:, :-1], scale
        )
        losses = {
            "actor": weight * (gain - self.entropy * entropy),
            "critic": weight * self.critic.loss(seen, returns.detach()),
            "replay_critic": self._replayed(state, batch, chosen, returns.detach()),
        }
        metrics = {
            "return_imagined": returns.detach().mean(),
            "value": value.detach().mean(),
            "entropy": entropy.detach().mean(),
            "return_scale": scale,
            "reward_imagined": path.reward.detach().mean(),
        }
        return losses, metrics

    def _starts(self, state: LatentState, batch: SequenceBatch) -> tuple[Tensor, LatentState]:
        """Random posterior states (N, ...), without gradient, and where they stood in the flat batch."""
        flat = [x.detach().flatten(0, 1) for x in state]
        total = len(flat[0])
        chosen = torch.randperm(total, device=flat[0].device)[: self.starts]
        return chosen, LatentState(*(x[chosen] for x in flat))

    def _replayed(self, state: LatentState, batch: SequenceBatch, chosen: Tensor, imagined: Tensor) -> Tensor:
        """The critic's loss on real sequences (B, T - 1), bootstrapped with the imagined return where there is one."""
        feature = state.feature.detach()  # (B, T, F)
        if self.uncertainty_weight:  # real rewards hold no bonus: they would be another target
            return feature.new_zeros(feature.shape[0], feature.shape[1] - 1)
        with torch.no_grad():
            value = self.critic(feature)
            flat = value.flatten().index_put((chosen,), imagined[:, 0])
            value = flat.view_as(value)
        # an episode that ends by time limit goes on in truth: its last record bootstraps from its own value
        follows = ~batch.is_first[:, 1:]
        discount = self.discount * (~batch.is_terminal[:, 1:]).float() * follows
        reward = torch.where(follows, batch.reward[:, 1:], value[:, :-1])
        returns = lambda_return(reward, discount, value[:, 1:], self.lam)
        return self.critic.loss(feature[:, :-1], returns)
