"""The smallest world model there is, and data for it."""

from __future__ import annotations

from typing import Any

import torch

from encoders.base import Encoder
from encoders.conv import PatchEncoder
from worldmodel.model.decoder import PatchDecoder
from worldmodel.model.distributions import CategoricalLatents, Latents
from worldmodel.model.transitions import SharedTrunk
from worldmodel.model.world_model import WorldModel
from worldmodel.types import SequenceBatch

ACTION, SIZE, MEMBERS = 2, 16, 3


def world_model(
    latents: Latents | None = None, members: int = MEMBERS, encoder: Encoder | None = None, **settings: Any
) -> WorldModel:
    """A world model of 16 x 16 images with 3 members, freshly and reproducibly initialised."""
    torch.manual_seed(0)
    return WorldModel(
        ACTION,
        encoder or PatchEncoder(SIZE, channels=(8, 8)),
        latents or CategoricalLatents(4, 4),
        lambda *sizes: SharedTrunk(*sizes, members=members, width=16),
        lambda feature: PatchDecoder(feature, SIZE, channels=(8, 8)),
        **{"deter": 16, "width": 16, **settings},
    )


def batch(sequences: int = 3, length: int = 6, size: int = SIZE, seed: int = 0) -> SequenceBatch:
    """Noise, aligned like a replay's sequences: each begins an episode, no other begins."""
    generator = torch.Generator().manual_seed(seed)
    shape = (sequences, length)
    is_first = torch.zeros(shape, dtype=torch.bool)
    is_first[:, 0] = True
    return SequenceBatch(
        torch.randint(256, (*shape, 3, size, size), generator=generator, dtype=torch.uint8),
        torch.rand(*shape, ACTION, generator=generator) * 2 - 1,
        torch.randn(shape, generator=generator),
        is_first,
        torch.zeros(shape, dtype=torch.bool),
        torch.arange(sequences).unsqueeze(1).expand(shape).contiguous(),
    )
