"""The transition p(s'|s, a): the seam where the ensembles differ.

Legend: K members, D deter, F feature, P params, N flat batch, I inputs, O outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.ranges import Members, Width
from worldmodel.model.layers import Block


class Transition(nn.Module, ABC):
    """K members, each predicting the distribution of the next latent. Chosen in a config.

    Raises:
        ValueError: without a member, or without a hidden layer.
    """

    def __init__(self, members: int, layers: int = 1) -> None:
        super().__init__()
        if members < 1:
            raise ValueError(f"an ensemble needs at least 1 member, got {members}")
        if layers < 1:
            raise ValueError(f"a transition needs at least 1 hidden layer, got {layers}")
        self.members = members

    @abstractmethod
    def forward(self, deter: Tensor, feature: Tensor, action: Tensor) -> Tensor:
        """All members' parameters.

        Args:
            deter: (*B, D) memory of the state that is predicted.
            feature: (*B, F) feature of the state before it.
            action: (*B, A) action between the two.

        Returns:
            (K, *B, P)
        """

    def follow(self, deter: Tensor, feature: Tensor, action: Tensor, member: Tensor) -> Tensor:
        """The parameters (*B, P) of one member for each state, all that a rollout needs unless uncertainty is wanted.

        Args:
            deter, feature, action: as in ``forward``.
            member: (*B,) index of the member, as a ``Propagation`` deals them: none has more than its even share.
        """
        return select_member(self(deter, feature, action), member)

    def draw(self) -> None:
        """Draw members anew where they are samples; called before every batch and every imagined rollout."""

    def drawn(self) -> dict[str, Tensor]:
        """What was drawn, for ``hold``: the buffers outside the state dict, by name."""
        lasting = self.state_dict().keys()
        return {name: buffer for name, buffer in self.named_buffers() if name not in lasting}

    def hold(self, drawn: Mapping[str, Tensor]) -> None:
        """Return to members that were drawn before."""
        for name, buffer in drawn.items():
            module, _, leaf = name.rpartition(".")
            setattr(self.get_submodule(module), leaf, buffer)

    def complexity(self) -> Tensor | None:
        """What the weights cost, () nats for each training record; None where they cost nothing."""
        return None


class SharedTrunk(Transition):
    """K heads over one trunk of the memory (as LOMPO, Plan2Explore): almost free, but their errors are alike.

    Args:
        deter_size, param_size: sizes D, P.
        feature_size, action_size: ignored, the memory holds them.
        default_width: the world model's.
        members: K.
        width: of the trunk; the world model's if None.
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
    ) -> None:
        super().__init__(members)
        width = default_width if width is None else width
        self.trunk = Block(deter_size, width)
        self.heads = nn.Linear(width, members * param_size)

    def forward(self, deter: Tensor, feature: Tensor, action: Tensor) -> Tensor:
        return rearrange(self.heads(self.trunk(deter)), "... (k p) -> k ... p", k=self.members)


def select_member(params: Tensor, index: Tensor) -> Tensor:
    """Params (K, *B, P) of the members ``index`` (*B,): (*B, P)."""
    index = index.unsqueeze(0).unsqueeze(-1).expand(1, *params.shape[1:])
    return params.gather(0, index).squeeze(0)


def member_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """K linear layers at once.

    Args:
        x: (N, I) that all members read, or (K, N, I).
        weight: (K, O, I)
        bias: (K, O)

    Returns:
        (K, N, O)
    """
    if x.dim() == 2:  # one wide layer
        return rearrange(F.linear(x, weight.flatten(0, 1), bias.flatten()), "n (k o) -> k n o", k=len(weight))
    return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
