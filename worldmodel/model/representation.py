"""What a latent state has to know of its image, where that is not to draw it.

Legend in worldmodel/types.py; N records, F feature, E embedding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.ranges import Layers, NonNegativeFloat, PositiveFloat
from worldmodel.model.layers import MLP
from worldmodel.types import SequenceBatch

_NUMBERS = 1024  # of an embedding, to which sums over them are scaled, so that the balance does not depend on its size


class RepresentationLoss(nn.Module, ABC):
    """Takes the place of the reconstruction: a decoder may stand beside it, and the model does not learn from that one.

    With ``beside`` it does: then the loss is one more, and a state has to be drawn as well. Embeddings are given
    without gradient, or they could be made easy to know: the encoder learns through the posterior. ``name`` is that of
    the loss, and ``weight`` the one that it has unless another is given.
    """

    name: ClassVar[str]
    weight: ClassVar[float]

    def __init__(self, beside: bool = False) -> None:
        super().__init__()
        self.beside = beside

    @abstractmethod
    def forward(self, feature: Tensor, embed: Tensor, batch: SequenceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (B, T), and metrics, each ().

        Args:
            feature: (B, T, F) of the posterior states, with gradient.
            embed: (B, T, E) what the encoder made of the images, without.
            batch: real sequences (B, T).
        """


# from the sizes F and E, that of an action, and the hidden width
MakeRepresentation = Callable[[int, int, int, int], RepresentationLoss]


class BarlowTwins(RepresentationLoss):
    """The feature, projected, and the embedding correlate number by number, and no two numbers with one another.

    R2-Dreamer (Morihira et al. 2026), after Barlow Twins (Zbontar et al. 2021).

    Args:
        feature_size, embed_size, action_size, width: F, E, and what this loss does not need.
        redundancy: weight of the correlations between different numbers.
        beside: the reconstruction, not in its place.
    """

    name, weight = "barlow", 0.05

    def __init__(
        self,
        feature_size: int,
        embed_size: int,
        action_size: int,
        width: int,
        redundancy: NonNegativeFloat = 5e-4,
        beside: bool = False,
    ) -> None:
        super().__init__(beside)
        self.project = nn.Linear(feature_size, embed_size, bias=False)
        self.redundancy = redundancy

    def forward(self, feature: Tensor, embed: Tensor, batch: SequenceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        every = torch.ones_like(batch.is_first, dtype=torch.float32)
        loss, alike = decorrelate(self.project(feature), embed, every, self.redundancy)
        return loss.expand(batch.is_first.shape), {"barlow_correlation": alike.detach()}


class InfoNCE(RepresentationLoss):
    """The projected feature tells its own embedding from those of all other records of the batch (van den Oord 2018).

    Similarity is the cosine, and the loss -log softmax of it over the batch, divided by the temperature.

    Args:
        feature_size, embed_size, action_size, width: F, E, and what this loss does not need.
        temperature: of the softmax.
        beside: the reconstruction, not in its place.
    """

    name, weight = "infonce", 1.0

    def __init__(
        self,
        feature_size: int,
        embed_size: int,
        action_size: int,
        width: int,
        temperature: PositiveFloat = 0.1,
        beside: bool = False,
    ) -> None:
        super().__init__(beside)
        self.project = nn.Linear(feature_size, embed_size, bias=False)
        self.temperature = temperature

    def forward(self, feature: Tensor, embed: Tensor, batch: SequenceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        said, seen = (x.flatten(0, 1).float() for x in (self.project(feature), embed))  # (N, E)
        seen = seen - seen.mean(0)  # or all embeddings point one way
        with torch.autocast(said.device.type, enabled=False):
            logits = F.normalize(said, dim=-1) @ F.normalize(seen, dim=-1).T / self.temperature  # (N, N)
        own = torch.arange(len(logits), device=logits.device)
        loss = F.cross_entropy(logits, own, reduction="none").unflatten(0, batch.is_first.shape)
        right = (logits.detach().argmax(1) == own).float().mean()
        return loss, {"infonce_accuracy": right}


class NextEmbedding(RepresentationLoss):
    """The feature and the next action tell the next record's embedding, by the measure of Barlow Twins.

    NE-Dreamer (Bredis et al. 2026), with the RSSM's own memory where that has a transformer over past states.

    Args:
        feature_size, embed_size, action_size, width: F, E, A and the hidden width of the predictor.
        layers: hidden layers of the predictor.
        redundancy: weight of the correlations between different numbers.
        beside: the reconstruction, not in its place.
    """

    name, weight = "next_embedding", 0.05

    def __init__(
        self,
        feature_size: int,
        embed_size: int,
        action_size: int,
        width: int,
        layers: Layers = 1,
        redundancy: NonNegativeFloat = 5e-4,
        beside: bool = False,
    ) -> None:
        super().__init__(beside)
        self.predict = MLP(feature_size + action_size, embed_size, width, layers)
        self.redundancy = redundancy

    def forward(self, feature: Tensor, embed: Tensor, batch: SequenceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        known = torch.cat([feature[:, :-1], batch.action[:, 1:]], -1)  # (B, T - 1, F + A)
        follows = (~batch.is_first[:, 1:]).float()  # where an episode begins nothing could be known
        loss, alike = decorrelate(self.predict(known), embed[:, 1:], follows, self.redundancy)
        return loss.expand(batch.is_first.shape), {"next_embedding_correlation": alike.detach()}


def decorrelate(said: Tensor, seen: Tensor, weight: Tensor, redundancy: float) -> tuple[Tensor, Tensor]:
    """Sum over i of (1 - c_ii)^2 + redundancy * sum over j of c_ij^2, with c the correlation of said_i with seen_j.

    The squares of all c_ij are summed by way of records times records, which are fewer than numbers times numbers:
    the sum over i, j of c_ij^2 is that of (X X')_nm (Y Y')_nm / N^2 over n, m.

    Args:
        said, seen: (B, T, E), of which ``seen`` has no gradient.
        weight: (B, T) 1 for the records that count, 0 for others.
        redundancy: weight of the correlations between different numbers.

    Returns:
        The loss () as if embeddings had 1,024 numbers, and the mean c_ii ().
    """
    weight = weight.flatten().unsqueeze(-1)  # (N, 1)
    count = weight.sum().clamp_min(1)
    with torch.autocast(said.device.type, enabled=False):
        x, y = (_standardised(z.flatten(0, 1).float(), weight, count) for z in (said, seen))  # (N, E)
        own = (x * y).sum(0) / count  # (E,)
        every = ((x @ x.T) * (y @ y.T)).sum() / count.square()
    loss = (1 - own).square().sum() + redundancy * (every - own.square().sum())
    return loss * (_NUMBERS / len(own)), own.mean()


def _standardised(z: Tensor, weight: Tensor, count: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the records that count, and 0 for the others; a constant stays 0."""
    centred = (z - (weight * z).sum(0) / count) * weight
    return centred * (centred.square().sum(0) / count + 1e-8).rsqrt()
