"""Where dreams begin: posterior states of real sequences. Legend in worldmodel/types.py."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldmodel.errors import UserError
from worldmodel.experience.replay import Replay
from worldmodel.insight.rollouts import reconstruction_error
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, SequenceBatch

_SEQUENCES, _ATTEMPTS = 16, 16  # filtered at once; such batches before it gives up


class Starts(NamedTuple):
    """P states to begin in."""

    state: LatentState  # (P, ...)
    reconstruction: Tensor | None  # (P,) ``reconstruction_error`` of their images; None where nothing is drawn


def is_warm(batch: SequenceBatch, context: int) -> Tensor:
    """Records (B, T) bool that a dream can begin in: the filter has seen ``context`` records, or all of the episode.

    None is terminal, for nothing follows there.
    """
    begun = batch.is_first.cumsum(1) > 0
    begun[:, context - 1 :] = True
    return begun & ~batch.is_terminal


@torch.no_grad()
def posterior_starts(
    world_model: WorldModel, replay: Replay, count: int = 1024, *, context: int = 10, seed: int = 0
) -> Starts:
    """States (count, ...) filtered in random records of a replay, after a burn-in. Leaves all generators as they are.

    Args:
        world_model: who filters.
        replay: the real sequences.
        count: how many; where the replay holds fewer records some of them come again, with other latents.
        context: records that are seen before, fewer only where the episode begins.
        seed: of the latents that are drawn.

    Raises:
        UserError: the replay is empty, or nothing can begin in it.
        ValueError: count or context is below 1.
    """
    if count < 1 or context < 1:
        raise ValueError(f"count and context must be at least 1, got {count} and {context}")
    found: list[LatentState] = []
    missed: list[Tensor] = []  # reconstruction errors
    device = world_model.rssm.from_stoch.weight.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []), replay.aside():
        torch.manual_seed(seed)
        while sum(len(state.deter) for state in found) < count:
            batch = replay.sample(_SEQUENCES, 2 * context).map(lambda x: x.to(device))
            warm = is_warm(batch, context)
            state = world_model.observe(batch).state
            found.append(LatentState._make(x[warm] for x in state))
            if world_model.draws and len(found[-1].deter):
                missed.append(reconstruction_error(world_model, found[-1].feature[None], batch.image[warm][None])[0])
            if len(found) == _ATTEMPTS and not any(len(state.deter) for state in found):
                raise UserError(f"no dream can begin in the replay {replay.directory}: all that it holds is terminal")
        together = LatentState._make(torch.cat(x) for x in zip(*found, strict=True))
        order = torch.randperm(len(together.deter), device=device)[:count]
    return Starts(together.map(lambda x: x[order]), torch.cat(missed)[order] if missed else None)
