"""The uncertainty of an ensemble's next latent, from all members' parameters.

Legend: K members, *B any batch, P parameters, S latents (groups of a categorical, dimensions of a Gaussian), C classes.

A prior (K, *B, P) comes from ``RSSM.img_step`` or is ``Posterior.prior``. The model itself lives by
``Latents.uncertainty``; these look closer, or are to be compared with it. For K = 1 what is epistemic is zero.
"""

from __future__ import annotations

from functools import singledispatch

from torch import Tensor

from worldmodel.model.distributions import CategoricalLatents, GaussianLatents, Latents
from worldmodel.types import Uncertainty


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
