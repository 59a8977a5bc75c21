"""Distributions of latents, of scalars and of their disagreement. Legend: K members, S latents, C classes, Z size.

All of it is computed in float32, whatever the precision of the networks: differences of probabilities are what counts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from encoders.ranges import PositiveFloat, ShareBelowOne, Width
from worldmodel.types import Uncertainty


class Latents(ABC):
    """A family of latent distributions, described by a flat parameter vector (*B, param_size)."""

    size: int  # of a flat sample
    param_size: int

    @abstractmethod
    def sample(self, params: Tensor) -> Tensor:
        """Draw a sample (*B, size) through which gradients flow."""

    @abstractmethod
    def mode(self, params: Tensor) -> Tensor:
        """The most likely sample (*B, size), with the same gradient path."""

    @abstractmethod
    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """KL(p || q) in nats, summed over the latents, (*B,). The two may broadcast."""

    @abstractmethod
    def entropy(self, params: Tensor) -> Tensor:
        """Entropy in nats, summed over the latents, (*B,)."""

    @abstractmethod
    def uncertainty(self, members: Tensor) -> Uncertainty:
        """Split the uncertainty of K members (K, *B, param_size) into aleatoric and epistemic, each (*B,)."""

    @abstractmethod
    def mixture(self, members: Tensor) -> Tensor:
        """Parameters (*B, param_size) of the one distribution nearest to the members' equal mixture."""


class CategoricalLatents(Latents):
    """``groups`` one-hot vectors of ``classes``.

    Straight-through gradients (DreamerV2), 1% uniform mixed in (DreamerV3).

    Uncertainty is the mutual information between member and class: the entropy of the mean minus the mean entropy
    (Depeweg et al. 2018), zero exactly when all members agree.
    """

    def __init__(self, groups: Width = 16, classes: Width = 16, unimix: ShareBelowOne = 0.01) -> None:
        if groups < 1 or classes < 2:
            raise ValueError(f"categorical latents need groups >= 1 and classes >= 2, got {groups} x {classes}")
        self.groups, self.classes, self.unimix = groups, classes, unimix
        self.size = self.param_size = groups * classes

    def probs(self, params: Tensor) -> Tensor:
        """Class probabilities (*B, S, C)."""
        logits = rearrange(params.float(), "... (s c) -> ... s c", c=self.classes)
        return (1 - self.unimix) * logits.softmax(-1) + self.unimix / self.classes

    @staticmethod
    def _straight_through(probs: Tensor, hot: Tensor) -> Tensor:
        if probs.requires_grad:
            hot = hot + (probs - probs.detach())
        return rearrange(hot, "... s c -> ... (s c)")

    def sample(self, params: Tensor) -> Tensor:
        probs = self.probs(params)
        with torch.no_grad():
            # by the inverse of the distribution function: one random number a latent, no argmax, ten times faster; no
            # product of matrices, which may be rounded so that classes behind a likely one are never drawn
            cumulative = probs.cumsum(-1)
            reached = cumulative > torch.rand_like(cumulative[..., :1]) * cumulative[..., -1:]
            hot = reached.to(probs.dtype)
            hot[..., 1:] -= reached[..., :-1].to(probs.dtype)
        return self._straight_through(probs, hot)

    def mode(self, params: Tensor) -> Tensor:
        probs = self.probs(params)
        hot = torch.zeros_like(probs).scatter_(-1, probs.argmax(-1, keepdim=True), 1.0)
        return self._straight_through(probs, hot)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        probs = self.probs(p)
        return (probs * (probs.log() - self.probs(q).log())).sum((-2, -1))

    def entropy(self, params: Tensor) -> Tensor:
        return self._entropy(self.probs(params))

    @staticmethod
    def _entropy(probs: Tensor) -> Tensor:
        return -(probs * probs.log()).sum((-2, -1))

    def uncertainty(self, members: Tensor) -> Uncertainty:
        probs = self.probs(members)  # (K, *B, S, C)
        total = self._entropy(probs.mean(0))
        aleatoric = self._entropy(probs).mean(0)
        return Uncertainty(total, aleatoric, (total - aleatoric).clamp_min(0))

    def mixture(self, members: Tensor) -> Tensor:
        if len(members) == 1:
            return members[0]
        mean = (self.probs(members).mean(0) - self.unimix / self.classes) / (1 - self.unimix)
        return rearrange(mean.clamp_min(1e-8).log(), "... s c -> ... (s c)")


class GaussianLatents(Latents):
    """A diagonal Gaussian of ``size`` numbers, reparameterised (PlaNet, Dreamer). params: mean (Z), raw deviation (Z).

    Uncertainty by the law of total variance, averaged over dimensions: mean of variances plus variance of means.
    """

    def __init__(self, size: Width = 32, min_std: PositiveFloat = 0.1) -> None:
        if size < 1:
            raise ValueError(f"Gaussian latents need size >= 1, got {size}")
        self.size, self.param_size, self.min_std = size, 2 * size, min_std

    def moments(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, each (*B, Z)."""
        mean, raw = params.float().chunk(2, -1)
        return mean, F.softplus(raw) + self.min_std

    def sample(self, params: Tensor) -> Tensor:
        mean, std = self.moments(params)
        return mean + std * torch.randn_like(std)

    def mode(self, params: Tensor) -> Tensor:
        return self.moments(params)[0]

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        (mean_p, std_p), (mean_q, std_q) = self.moments(p), self.moments(q)
        ratio = std_p / std_q
        return (0.5 * (ratio**2 + ((mean_p - mean_q) / std_q) ** 2 - 1) - ratio.log()).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        return (self.moments(params)[1].log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def uncertainty(self, members: Tensor) -> Uncertainty:
        mean, std = self.moments(members)  # (K, *B, Z)
        aleatoric = (std**2).mean(0).mean(-1)
        epistemic = _variance(mean).mean(-1)
        return Uncertainty(aleatoric + epistemic, aleatoric, epistemic)

    def mixture(self, members: Tensor) -> Tensor:
        if len(members) == 1:
            return members[0]
        mean, std = self.moments(members)
        matched = ((std**2).mean(0) + _variance(mean)).sqrt()
        raw = torch.expm1((matched - self.min_std).clamp_min(1e-6)).log()  # inverse of softplus
        return torch.cat([mean.mean(0), raw], -1)


def _variance(members: Tensor) -> Tensor:
    """Over the first dimension; ``var`` itself is many times slower there."""
    return (members - members.mean(0)).square().mean(0)


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|) (DreamerV3, equation 9)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """Inverse of symlog."""
    return x.sign() * x.abs().expm1()


class TwoHot(torch.nn.Module):
    """A scalar as a categorical over exponentially spaced bins (DreamerV3, equations 10 and 11).

    Args:
        bins: number of bins, odd so that zero is one of them.
        limit: the outermost bins stand at +-symexp(limit).
    """

    bins: Tensor

    def __init__(self, bins: int = 255, limit: float = 20.0) -> None:
        super().__init__()
        if bins < 3 or bins % 2 == 0:
            raise ValueError(f"bins must be odd and at least 3, got {bins}")
        half = symexp(torch.linspace(-limit, 0, bins // 2 + 1, dtype=torch.float64)).float()
        self.register_buffer("bins", torch.cat([half, -half[:-1].flip(0)]), persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """Expected value, (*B, bins) -> (*B,). The two halves are summed apart so that they cancel exactly at zero."""
        probs = logits.float().softmax(-1)
        weighted = probs * self.bins
        middle = len(self.bins) // 2
        left, right = weighted[..., :middle].flip(-1), weighted[..., middle + 1 :]
        return (left + right).sum(-1)

    def target(self, value: Tensor) -> Tensor:
        """Two-hot weights (*B, bins) whose mean is ``value`` (*B,), clipped to the outermost bins."""
        value = value.clamp(self.bins[0], self.bins[-1]).contiguous()
        above = torch.searchsorted(self.bins, value).clamp(1, len(self.bins) - 1)
        low, high = self.bins[above - 1], self.bins[above]
        share = ((value - low) / (high - low)).unsqueeze(-1)
        target = share.new_zeros(*value.shape, len(self.bins))
        target.scatter_(-1, (above - 1).unsqueeze(-1), 1 - share)
        return target.scatter_(-1, above.unsqueeze(-1), share)

    def loss(self, logits: Tensor, value: Tensor) -> Tensor:
        """Cross-entropy (*B,) of ``value``'s two-hot weights under the logits."""
        return -(self.target(value) * logits.float().log_softmax(-1)).sum(-1)
