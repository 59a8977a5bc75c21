"""How wrong dreams are likely to be by now, while they are stepped by hand. Legend: N dreams."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from worldmodel.insight.error_model import Clues
from worldmodel.insight.member_dreams import MemberDreams
from worldmodel.insight.trust import Trust
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState

_LEVEL = 0.9


class Judgements(NamedTuple):
    """Of N dreams, (N,) each; errors are NaN beyond the steps that the calibration knows."""

    low: np.ndarray  # error in pixels, in [0, 1]
    high: np.ndarray  # the band of 90%
    median: np.ndarray
    reward: np.ndarray  # the error of the step's reward, the median
    trusted: np.ndarray  # bool: likely still better than the last picture; trust that is lost does not come back


class DreamJudge:
    """Judges N dreams, which need not have begun together, at every step.

    Args:
        world_model: who dreams.
        trust: its calibration.
    """

    def __init__(self, world_model: WorldModel, trust: Trust) -> None:
        self._beside, self._trust = MemberDreams(world_model), trust
        self._steps, self._trusted = np.zeros(0, int), np.zeros(0, bool)

    def begin(self, state: LatentState, reconstruction: Tensor, which: Tensor | None = None) -> None:
        """Dreams begin in filtered states (N, ...), those of a mask (N,) or all.

        ``reconstruction`` (N,) is the ``reconstruction_error`` of the last image that each has seen.
        """
        self._beside.begin(state, reconstruction, which)
        if which is None or not len(self._steps):
            self._steps, self._trusted = np.zeros(len(state.deter), int), np.ones(len(state.deter), bool)
        else:
            begun = which.cpu().numpy()
            self._steps, self._trusted = np.where(begun, 0, self._steps), self._trusted | begun

    def step(self, state: LatentState, action: Tensor) -> Judgements:
        """The dreams have come to ``state`` (N, ...) by ``action`` (N, A)."""
        clues = self._beside.step(state, action)
        self._steps = self._steps + 1
        errors, likely = np.full((4, len(self._steps)), np.nan), np.zeros(len(self._steps), bool)
        for step in np.unique(self._steps[self._steps <= self._trust.horizon]):
            here = self._steps == step
            alone, seen = self._trust.only(int(step)), Clues(*(x[here] for x in clues))
            pixels = alone.expected(seen)
            ends = (*pixels.band(_LEVEL), pixels.median, alone.expected(seen, "reward").median)
            errors[:, here] = np.concatenate(ends, 1).T
            likely[here] = alone.trusted_steps(seen) > 0
        self._trusted = self._trusted & likely
        low, high, median, reward = errors
        return Judgements(low, high, median, reward=reward, trusted=self._trusted)
