"""How wrong a dream that is driven is likely to be by now. Legend: K members, A action size."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodel.insight.rollouts import picture
from worldmodel.insight.trust import Clues, Trust
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState

_LEVEL = 0.9


class Judgement(NamedTuple):
    """Errors in pixels, in [0, 1], and whether the dream is likely still better than the last picture."""

    low: float
    high: float  # the band of 90%
    median: float
    trusted: bool


class Tracker:
    """Carries every member's own dream beside the one that is driven.

    Args:
        world_model: who dreams.
        trust: its calibration.
    """

    def __init__(self, world_model: WorldModel, trust: Trust) -> None:
        self._world_model, self._trust = world_model, trust
        self._own: LatentState | None = None  # (K, ...)
        self._last: Tensor | None = None  # (3, h, w)
        self._total: Tensor | None = None  # (K,) rewards so far
        self._step, self._trusted = 0, True

    @torch.no_grad()
    def begin(self, state: LatentState) -> None:
        """A dream begins in a state (1, ...)."""
        members = self._world_model.rssm.transition.members
        self._own = state.map(lambda x: x.expand(members, -1))
        self._last = picture(self._world_model, state.feature)[0]
        self._total = state.deter.new_zeros(members)
        self._step, self._trusted = 0, True

    @torch.no_grad()
    def step(self, state: LatentState, action: Tensor) -> Judgement | None:
        """The dream has come to ``state`` (1, ...) by ``action`` (1, A); None where the calibration ends.

        Trust that is lost does not come back.
        """
        assert self._own is not None and self._total is not None and self._last is not None
        model, members = self._world_model, len(self._total)
        who = torch.arange(members, device=action.device)
        self._own = model.rssm.follow(self._own, action.expand(members, -1), who, mode=True)
        reward = model.reward(self._own.feature)
        self._total = self._total + reward
        images = picture(model, self._own.feature)  # (K, 3, h, w)
        moved = (picture(model, state.feature)[0] - self._last).abs().mean()
        clues = Clues(
            pixels=_number(images.std(0, unbiased=False).mean()),
            reward=_number(reward.std(0, unbiased=False)),
            total=_number(self._total.std(0, unbiased=False)),
            latent=_number(self._own.stoch.var(0, unbiased=False).mean()),
            motion=_number(moved),
        )
        self._step += 1
        if self._step > self._trust.horizon:
            return None
        alone = self._trust.only(self._step)
        expected = alone.expected(clues)
        low, high = expected.band(_LEVEL)
        self._trusted = self._trusted and bool(alone.trusted_steps(clues)[0])
        return Judgement(float(low[0, 0]), float(high[0, 0]), float(expected.median[0, 0]), self._trusted)


def _number(x: Tensor) -> np.ndarray:
    """(1, 1)"""
    return np.array([[float(x)]])
