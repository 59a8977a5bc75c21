"""One network with a distribution over its weights: a member is a draw, held until the next ``draw()``.

What is drawn lies in buffers outside the state dict. ``draw()`` puts new tensors in their place and never writes into
the old ones: a graph that was recorded before still needs them.

Legend: K members, D deter, P params, W width, N flat batch.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.ranges import Hidden, Members, PositiveFloat, PositiveInt, Width
from worldmodel.model.layers import Block
from worldmodel.model.transitions import Transition, member_linear


class BayesianLinear(nn.Module):
    """A linear layer with weights w = mean + softplus(rho) * eps (Blundell et al. 2015), K draws at once; one bias.

    Deviations are those of the sums: ``initial_std`` and ``prior_std`` are divided by the root of ``inputs``.
    """

    eps: Tensor

    def __init__(self, members: int, inputs: int, outputs: int, prior_std: float, initial_std: float) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.prior_std = prior_std * bound
        self.mean = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.rho = nn.Parameter(torch.full((outputs, inputs), math.log(math.expm1(initial_std * bound))))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("eps", torch.randn(members, outputs, inputs), persistent=False)

    @property
    def std(self) -> Tensor:
        """Deviation of each weight (outputs, inputs)."""
        return F.softplus(self.rho)

    def draw(self) -> None:
        self.eps = torch.randn_like(self.eps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) or (K, N, inputs) -> (K, N, outputs)."""
        weight = torch.addcmul(self.mean, self.std, self.eps)  # (K, outputs, inputs)
        return member_linear(x, weight, self.bias.expand(len(weight), -1))

    def kl(self) -> Tensor:
        """KL(q(w) || N(0, prior_std^2)), () nats over all weights."""
        std = self.std
        return (((std**2 + self.mean**2) / self.prior_std**2 - 1) / 2 - (std / self.prior_std).log()).sum()


class BayesianTransition(Transition):
    """A network of the memory, a Gaussian over each weight, by variational inference (Blundell et al. 2015).

    Biases and layer norms are not drawn. A weight of a layer with n inputs has the prior N(0, prior_std^2 / n), so that
    inputs of unit size make sums of size ``prior_std``.

    Args:
        deter_size, param_size: sizes D, P.
        feature_size, action_size: ignored, the memory holds them.
        default_width: the world model's.
        members: K draws of the weights.
        width, layers: of the hidden layers (linear, layer norm, SiLU); as wide as the world model's if None.
        records: training records that the weights explain; their cost is shared among them.
        prior_std: deviation under the prior, times the root of a layer's inputs.
        initial_std: deviation at the start, times the root of a layer's inputs; small, so that the signal is larger
            than its noise (means start with 0.58).

    Raises:
        ValueError: without a member or a hidden layer, or if ``records`` or a deviation is not above 0.
    """

    def __init__(
        self,
        deter_size: int,
        feature_size: int,
        action_size: int,
        param_size: int,
        default_width: int = 256,
        members: Members = 5,
        width: Width | None = None,
        layers: Hidden = 1,
        records: PositiveInt = 10000,
        prior_std: PositiveFloat = 1.0,
        initial_std: PositiveFloat = 0.05,
    ) -> None:
        super().__init__(members, layers)
        if min(records, prior_std, initial_std) <= 0:
            raise ValueError(
                f"records, prior_std and initial_std must be above 0, got {records}, {prior_std} and {initial_std}"
            )
        self.records, width = records, default_width if width is None else width
        blocks: list[nn.Module] = []
        for i in range(layers):
            linear = BayesianLinear(
                members, width if i else deter_size, width, prior_std=prior_std, initial_std=initial_std
            )
            blocks += [linear, nn.LayerNorm(width, eps=1e-3), nn.SiLU()]
        self.net = nn.Sequential(
            *blocks, BayesianLinear(members, width, param_size, prior_std=prior_std, initial_std=initial_std)
        )

    def _linears(self) -> list[BayesianLinear]:
        return [module for module in self.net if isinstance(module, BayesianLinear)]

    def draw(self) -> None:
        for linear in self._linears():
            linear.draw()

    def complexity(self) -> Tensor:
        return torch.stack([linear.kl() for linear in self._linears()]).sum() / self.records

    def forward(self, deter: Tensor, feature: Tensor, action: Tensor) -> Tensor:
        params = self.net(rearrange(deter, "... d -> (...) d"))  # (K, N, P)
        return params.reshape(self.members, *deter.shape[:-1], -1)


class DropoutTransition(Transition):
    """A network of the memory whose hidden units are dropped, in training and after (Gal and Ghahramani 2016).

    Args:
        deter_size, param_size: sizes D, P.
        feature_size, action_size: ignored, the memory holds them.
        default_width: the world model's.
        members: K draws of the masks.
        width, layers: of the hidden layers (linear, layer norm, SiLU); as wide as the world model's if None.
        rate: probability that a unit is dropped, in (0, 1).

    Raises:
        ValueError: without a member or a hidden layer, or if ``rate`` is not in (0, 1).
    """

    masks: Tensor  # (layers, K, 1, W)

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
        rate: float = 0.1,
    ) -> None:
        super().__init__(members, layers)
        if not 0 < rate < 1:
            raise ValueError(f"rate is a probability in (0, 1), got {rate}")
        self.rate, width = rate, default_width if width is None else width
        self.blocks = nn.ModuleList(Block(width if i else deter_size, width) for i in range(layers))
        self.head = nn.Linear(width, param_size)
        self.register_buffer("masks", torch.empty(layers, members, 1, width), persistent=False)
        self.draw()

    def draw(self) -> None:
        kept = torch.rand_like(self.masks) >= self.rate
        self.masks = kept.to(self.masks.dtype) / (1 - self.rate)

    def forward(self, deter: Tensor, feature: Tensor, action: Tensor) -> Tensor:
        x = rearrange(deter, "... d -> (...) d")
        for block, mask in zip(self.blocks, self.masks, strict=True):
            x = block(x) * mask  # (K, N, W); before the first mask all members are one
        return self.head(x).reshape(self.members, *deter.shape[:-1], -1)
