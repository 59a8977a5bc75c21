"""What is observed beside an image: numbers such as a robot's joints, or a goal. Legend: V numbers, F feature."""

from __future__ import annotations

from torch import Tensor, nn

from worldmodel.model.distributions import symlog
from worldmodel.model.layers import MLP


class VectorInput(nn.Module):
    """A vector as a second input of the posterior, and its reconstruction, both of symlog (DreamerV3).

    Args:
        size: V.
        feature_size: F.
        width: of the hidden layers, and of what is made of a vector, W.
    """

    def __init__(self, size: int, feature_size: int, width: int) -> None:
        super().__init__()
        self.size, self.embed_dim = size, width
        self.encoder = MLP(size, width, width, layers=2)
        self.head = MLP(feature_size, size, width, layers=2)

    def forward(self, vector: Tensor) -> Tensor:
        """(*B, V) -> (*B, W)."""
        return self.encoder(symlog(vector))

    def loss(self, feature: Tensor, vector: Tensor) -> Tensor:
        """Half the squared error of symlog, summed over the numbers: (*B, F), (*B, V) -> (*B,)."""
        return (self.head(feature).float() - symlog(vector)).square().sum(-1) / 2
