"""The uncertainty of an ensemble: of its next latent, from all members' parameters, and how far its rollouts part.

Legend: K members, *B any batch, P parameters, S latents (groups of a categorical, dimensions of a Gaussian), C classes,
B rollouts, H horizon, D memory, F feature.

A prior (K, *B, P) comes from ``RSSM.img_step`` or is ``Posterior.prior``. The model itself lives by
``Latents.uncertainty``; these look closer, or are to be compared with it. Spreads are of rollouts (K, B, ...) that
``imagine_members`` gives: deviations (or variances) over members without Bessel's correction. For K = 1 what is
epistemic is zero.
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from worldmodel.insight.rollouts import picture
from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, Trajectory, Uncertainty


@singledispatch
def per_latent(latents: Latents, prior: Tensor) -> Uncertainty:
    """``Latents.uncertainty`` of each latent on its own, total = aleatoric + epistemic.

    Categorical: entropy of the mean, mean of the entropies, and the mutual information (Depeweg et al. 2018), in nats;
    their sums over S are ``latents.uncertainty``. Gaussian: law of total variance; there it is their means over S.

    Args:
        latents: the family.
        prior: (K, *B, P)

    Returns:
        Each (*B, S), 0 or more.

    Raises:
        TypeError: the family is neither categorical nor Gaussian.
    """
    raise TypeError(
        f"the uncertainty of each latent is not known for {type(latents).__name__}: register its own function"
    )


@per_latent.register
def _(latents: CategoricalLatents, prior: Tensor) -> Uncertainty:
    probs = latents.probs(prior)  # (K, *B, S, C)
    mean = probs.mean(0)
    total = -(mean * mean.log()).sum(-1)  # (*B, S)
    aleatoric = -(probs * probs.log()).sum(-1).mean(0)
    return Uncertainty(total, aleatoric, (total - aleatoric).clamp_min(0))


@per_latent.register
def _(latents: GaussianLatents, prior: Tensor) -> Uncertainty:
    mean, std = latents.moments(prior)  # (K, *B, S)
    aleatoric, epistemic = std.square().mean(0), mean.var(0, unbiased=False)
    return Uncertainty(aleatoric + epistemic, aleatoric, epistemic)


def entropy(latents: Latents, prior: Tensor) -> Tensor:
    """Predictive entropy (*B,) in nats of the mixture of a prior (K, *B, P); for K = 1 the member's own.

    The baseline: it does not tell noise from ignorance.
    """
    return latents.entropy(latents.mixture(prior))


def information(latents: Latents, prior: Tensor) -> Tensor:
    """Nats (*B,) that the next latent tells of which member it came from, for a prior (K, *B, P) of either family.

    Entropy of the mixture minus mean entropy of the members. Categorical: the mutual information. Gaussian: the mixture
    is replaced by the Gaussian of its moments, which has the greatest entropy of all with these moments: an upper bound
    of the mutual information.
    """
    return (entropy(latents, prior) - latents.entropy(prior).mean(0)).clamp_min(0)


def pairwise(latents: Latents, prior: Tensor) -> Tensor:
    """Mean over pairs of members of (KL(i || j) + KL(j || i)) / 2, (*B,) nats, of a prior (K, *B, P)."""
    members = len(prior)
    each = latents.kl(prior.unsqueeze(1), prior.unsqueeze(0))  # (K, K, *B)
    return each.sum((0, 1)) / max(1, members * (members - 1))  # a member is no distance from itself


def reward_spread(members: Trajectory[LatentState]) -> Tensor:
    """Deviation over members of the reward, (B, H)."""
    return members.reward.std(0, unbiased=False)


def pixel_spread(world_model: WorldModel, members: Trajectory[LatentState]) -> Tensor:
    """Mean over pixels of the deviation over members of the image, (B, H) in [0, 0.5]."""
    steps = members.state.feature.unbind(2)[1:]  # a step at a time: all images at once can be gigabytes
    return torch.stack([_pixel_deviation(world_model, feature) for feature in steps], 1)


def latent_spread(members: Trajectory[LatentState]) -> Tensor:
    """Mean over dimensions of the variance over members of the latent, (B, H).

    Categorical latents are one-hot vectors: in [0, 0.25], and 0 where all members agree on every class.
    """
    return members.state.stoch[:, :, 1:].var(0, unbiased=False).mean(-1)


def reward_disagreement(world_model: WorldModel, deter: Tensor, prior: Tensor) -> Tensor:
    """Deviation (*B,) over members of the reward at each member's most likely next latent.

    Args:
        world_model: whose reward head is asked.
        deter: (*B, D) memory of the next state.
        prior: (K, *B, P) of its latent, as ``RSSM.img_step`` gives both.
    """
    return world_model.reward(_modes(world_model, deter, prior)).std(0, unbiased=False)


def pixel_disagreement(world_model: WorldModel, deter: Tensor, prior: Tensor) -> Tensor:
    """The same for the image: mean over pixels of the deviation over members, (*B,) in [0, 0.5]."""
    return _pixel_deviation(world_model, _modes(world_model, deter, prior))


def _modes(world_model: WorldModel, deter: Tensor, prior: Tensor) -> Tensor:
    """Features (K, *B, F) of each member's most likely next state."""
    mode = world_model.latents.mode(prior)
    return torch.cat([deter.expand(len(prior), *deter.shape), mode], -1)


def _pixel_deviation(world_model: WorldModel, feature: Tensor) -> Tensor:
    """(K, *B, F) -> (*B,)"""
    return picture(world_model, feature).std(0, unbiased=False).mean((-3, -2, -1))
