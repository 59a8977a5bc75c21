"""How wrong a dream that is driven is likely to be by now. Legend: A action size."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from worldmodel.insight.member_dreams import MemberDreams
from worldmodel.insight.trust import Trust
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
        self._beside, self._trust = MemberDreams(world_model), trust
        self._step, self._trusted = 0, True

    def begin(self, state: LatentState) -> None:
        """A dream begins in a state (1, ...)."""
        self._beside.begin(state)
        self._step, self._trusted = 0, True

    def step(self, state: LatentState, action: Tensor) -> Judgement | None:
        """The dream has come to ``state`` (1, ...) by ``action`` (1, A); None where the calibration ends.

        Trust that is lost does not come back.
        """
        clues = self._beside.step(state, action)
        self._step += 1
        if self._step > self._trust.horizon:
            return None
        alone = self._trust.only(self._step)
        expected = alone.expected(clues)
        low, high = expected.band(_LEVEL)
        self._trusted = self._trusted and bool(alone.trusted_steps(clues)[0])
        return Judgement(float(low[0, 0]), float(high[0, 0]), float(expected.median[0, 0]), self._trusted)
