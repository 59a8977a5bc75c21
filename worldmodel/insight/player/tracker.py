"""How wrong a dream that is driven is likely to be by now. Legend: A action size."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodel.insight.dream_judge import DreamJudge
from worldmodel.insight.rollouts import reconstruction_error
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
        self._world_model, self._judge = world_model, DreamJudge(world_model, trust)

    def begin(self, state: LatentState, image: np.ndarray) -> None:
        """A dream begins in a state (1, ...), whose last image (3, H, W) uint8 has been seen."""
        shown = torch.from_numpy(image).to(state.deter.device)[None, None]  # (1, 1, 3, H, W)
        self._judge.begin(state, reconstruction_error(self._world_model, state.feature[:, None], shown)[:, 0])

    def step(self, state: LatentState, action: Tensor) -> Judgement | None:
        """The dream has come to ``state`` (1, ...) by ``action`` (1, A); None where the calibration ends.

        Trust that is lost does not come back.
        """
        found = self._judge.step(state, action)
        low, high, median = (float(x[0]) for x in (found.low, found.high, found.median))
        return None if math.isnan(median) else Judgement(low, high, median, bool(found.trusted[0]))
