"""An ensemble whose members share nothing. Legend: K members, I inputs, F feature, A action, P params,
N flat batch, G places.

Weights are (K, outputs, inputs): all members go through each layer in one product.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.ranges import Hidden, Members, NonNegativeFloat, PositiveFloat, Width
from worldmodel.model.transitions import Transition, member_linear


class MemberLinear(nn.Module):
    """K linear layers, each initialised like ``nn.Linear``. (N, inputs) or (K, N, inputs) -> (K, N, outputs)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return member_linear(x, self.weight, self.bias)


class MemberNorm(nn.Module):
    """K layer norms, (K, N, width) -> (K, N, width)."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, 1, width))
        self.shift = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, F.layer_norm(x, x.shape[-1:], eps=1e-3), self.scale)


class RandomPriors(nn.Module):
    """K fixed random functions: one hidden layer of ReLUs, about unit variance for inputs of unit variance.

    Buffers, not parameters: never trained, kept in checkpoints. Gradients pass through to the inputs.
    """

    weight: Tensor
    bias: Tensor
    out: Tensor

    def __init__(self, members: int, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        # the sum in each hidden unit has variance 2, of which the ReLU leaves a mean square of 1
        self.register_buffer("weight", torch.randn(members, width, inputs) * inputs**-0.5)
        self.register_buffer("bias", torch.randn(members, width))
        self.register_buffer("out", torch.randn(members, outputs, width) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) that all members read, or (K, N, inputs) -> (K, N, outputs)."""
        return torch.bmm(member_linear(x, self.weight, self.bias).relu(), self.out.mT)


class IndependentEnsemble(Transition):
    """K networks of the state before and the action; the memory is not read, so that no features are shared.

    With ``prior_scale`` > 0 member k is ``f_k + prior_scale * q_k``, q_k a fixed random function that f_k learns to
    cancel where there is data, and only there (Osband et al. 2018, Randomized Prior Functions).

    Args:
        deter_size: ignored.
        feature_size, action_size, param_size: sizes F, A, P.
        default_width: the world model's.
        members: K.
        width, layers: of every member's hidden layers (linear, layer norm, SiLU); if no width is given, the world
            model's times ``width_share``.
        prior_scale: deviation of the fixed random functions, 0 for none.
        normalise: with layer norms.
        width_share: members half as wide (0.5) cost an update a third of what whole ones do; ``usual_share`` if None.

    Raises:
        ValueError: without a member or a hidden layer, if ``prior_scale`` is below 0, or ``width_share`` not above it.
    """

    usual_share: ClassVar[float] = 1.0

    def __init__(
        self,
        deter_size: int,
        feature_size: int,
        action_size: int,
        param_size: int,
        default_width: int = 256,
        members: Members = 5,
        width: Width | None = None,
        layers: Hidden = 2,
        prior_scale: NonNegativeFloat = 0.0,
        normalise: bool = True,
        width_share: PositiveFloat | None = None,
    ) -> None:
        super().__init__(members, layers)
        if prior_scale < 0:
            raise ValueError(f"prior_scale is a deviation of at least 0, got {prior_scale}")
        width_share = self.usual_share if width_share is None else width_share
        if width_share <= 0:
            raise ValueError(f"width_share is a share of the world model's width above 0, got {width_share}")
        inputs = self.inputs(deter_size, feature_size, action_size)
        width = max(1, round(default_width * width_share)) if width is None else width
        blocks: list[nn.Module] = []
        for i in range(layers):
            norm = [MemberNorm(members, width)] if normalise else []
            blocks += [MemberLinear(members, width if i else inputs, width), *norm, nn.SiLU()]
        self.net = nn.Sequential(*blocks, MemberLinear(members, width, param_size))
        self.prior_scale = prior_scale
        self.priors = RandomPriors(members, inputs, param_size, width) if prior_scale else None

    def inputs(self, deter_size: int, feature_size: int, action_size: int) -> int:
        """Size I of what a member reads."""
        return feature_size + action_size

    def read(self, deter: Tensor, feature: Tensor, action: Tensor) -> Tensor:
        """What a member reads, (*B, I)."""
        return torch.cat([feature, action], -1)

    def forward(self, deter: Tensor, feature: Tensor, action: Tensor) -> Tensor:
        x = rearrange(self.read(deter, feature, action), "... i -> (...) i")  # (N, I)
        return self._params(x).reshape(self.members, *feature.shape[:-1], -1)

    def follow(self, deter: Tensor, feature: Tensor, action: Tensor, member: Tensor) -> Tensor:
        x = rearrange(self.read(deter, feature, action), "... i -> (...) i")  # (N, I)
        # each member has a row of places and computes those alone: the work of one network instead of K
        places = -(-len(x) // self.members)  # G
        slot = _slots(member.flatten(), self.members, places)
        dealt = x.new_zeros(self.members * places, x.shape[-1]).index_copy(0, slot, x)
        params = self._params(rearrange(dealt, "(k g) i -> k g i", k=self.members))  # (K, G, P)
        return rearrange(params, "k g p -> (k g) p")[slot].reshape(*feature.shape[:-1], -1)

    def _params(self, x: Tensor) -> Tensor:
        """(N, I) that all members read, or (K, N, I) -> (K, N, P)."""
        params = self.net(x)
        return params if self.priors is None else params + self.prior_scale * self.priors(x)


class IndependentHeads(IndependentEnsemble):
    """K networks of the memory alone, which holds the state before and the action: ``SharedTrunk`` without its trunk.

    Members share the memory, and with it the errors of its one recurrent step, but no layer after it. The memory is
    then trained by what all of them predict, and learns as quickly as with shared heads. Usually half as wide.
    """

    usual_share = 0.5

    def inputs(self, deter_size: int, feature_size: int, action_size: int) -> int:
        return deter_size

    def read(self, deter: Tensor, feature: Tensor, action: Tensor) -> Tensor:
        return deter


def _slots(member: Tensor, members: int, places: int) -> Tensor:
    """A place of its own (N,) for each of ``member`` (N,), among ``places`` of each member that lie end to end."""
    order = member.argsort()
    ranked = member[order]
    first = torch.searchsorted(ranked, torch.arange(members, device=member.device))  # (K,) where each begins
    rank = torch.arange(len(member), device=member.device) - first[ranked]
    return torch.empty_like(member).index_copy(0, order, ranked * places + rank)
