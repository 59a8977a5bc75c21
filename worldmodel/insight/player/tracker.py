"""How wrong a dream that is driven is likely to be by now. Legend: A action size."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from worldmodel.insight.dream_judge import DreamJudge
from worldmodel.insight.trust import Trust
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState


class Judgement(NamedTuple):
    """Errors in pixels, in [0, 1], and whether the dream is likely still better than the last picture."""

    low: float
    high: float  # the band of 90%
    median: float
    trusted: bool


class Tracker:
    """``DreamJudge`` of one dream.

    Args:
        world_model: who dreams.
        trust: its calibration.
    """

    def __init__(self, world_model: WorldModel, trust: Trust) -> None:
        self._judge = DreamJudge(world_model, trust)

    def begin(self, state: LatentState) -> None:
        """A dream begins in a state (1, ...)."""
        self._judge.begin(state)

    def step(self, state: LatentState, action: Tensor) -> Judgement | None:
        """The dream has come to ``state`` (1, ...) by ``action`` (1, A); None where the calibration ends.

        Trust that is lost does not come back.
        """
        found = self._judge.step(state, action)
        low, high, median = (float(x[0]) for x in (found.low, found.high, found.median))
        return None if math.isnan(median) else Judgement(low, high, median, bool(found.trusted[0]))
