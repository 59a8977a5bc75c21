"""Caution in units of error: what a calibration says of the uncertainty along a rollout, for planners and actors.

Legend: M rollouts, H horizon. A rollout begins in a state that was filtered; beyond the steps that the calibration
knows the last of them stands for all.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from encoders.ranges import Finite, PositiveFloat
from worldmodel.control.truncation import Truncation
from worldmodel.control.uncertainty_weight import UncertaintyWeight
from worldmodel.errors import UserError
from worldmodel.insight.error_model import ALONG, PROBABILITIES, Clues, ErrorModel
from worldmodel.insight.trust import Trust


class RewardErrorWeight(UncertaintyWeight):
    """``value`` times the error of the reward that is to be expected of each step, in units of reward.

    At -1 a planner counts on the reward less its likely error. Where uncertainty says nothing of the error, as it may
    late in a rollout, all plans cost the same, and caution costs nothing. Rollouts that are more unsure than what was
    held out are beyond what the calibration knows: there the error is taken to grow in proportion, a guess. With
    ``unusual`` that growth is all that counts: what is as unsure as held-out dreams were costs nothing, so where there
    is nothing to beware of there is next to nothing to pay.

    Args:
        calibration: a run's ``calibration.json``.
        value: what a unit of expected error adds to the reward; below 0 cautious, above 0 curious.
        unusual: count only the error beyond that of the most unsure of the held-out dreams (one in twenty).

    Raises:
        UserError: the file is none.
    """

    def __init__(self, calibration: str, value: Finite = -1.0, unusual: bool = False) -> None:
        super().__init__()
        self._take(_read(calibration), value, unusual)

    @classmethod
    def of(cls, trust: Trust, value: float = -1.0, unusual: bool = False) -> RewardErrorWeight:
        """The same of what ``load_trust`` gives."""
        made = cls.__new__(cls)
        UncertaintyWeight.__init__(made)
        made._take(trust, value, unusual)
        return made

    def _take(self, trust: Trust, value: float, unusual: bool) -> None:
        self.value, self.counts, self.unusual = value, value != 0, unusual
        self.expected = _Expected(_along(trust).models["reward"], 0.5)

    def forward(self, uncertainty: Tensor) -> Tensor:
        """What a unit of uncertainty is worth on average, ()."""
        with torch.no_grad():
            return self.added(uncertainty, uncertainty).mean() / uncertainty.mean().clamp_min(1e-8)

    def added(self, uncertainty: Tensor, weight: Tensor) -> Tensor:
        return self.value * (self.expected.excess(uncertainty) if self.unusual else self.expected(uncertainty))


class AtTrustHorizon(Truncation):
    """Up to the step at which the dream is likely worse than if the last picture stayed: see ``Trust.trusted_steps``.

    Args:
        calibration: a run's ``calibration.json``.
        threshold: an error in pixels instead, in (0, 1]: up to the step at which one of ten dreams is worse.

    Raises:
        UserError: the file is none.
    """

    def __init__(self, calibration: str, threshold: PositiveFloat | None = None) -> None:
        self._take(_read(calibration), threshold)

    @classmethod
    def of(cls, trust: Trust, threshold: float | None = None) -> AtTrustHorizon:
        """The same of what ``load_trust`` gives."""
        made = cls.__new__(cls)
        made._take(trust, threshold)
        return made

    def _take(self, trust: Trust, threshold: float | None) -> None:
        along = _along(trust)
        self.threshold, self.limit = threshold, along.limit
        self._likely = _Expected(along.models["pixels"], 0.5)
        self._still = _Expected(along.models["still"], 0.5, beyond=False)
        self._most = _Expected(along.models["pixels"], 0.9)

    def __call__(self, uncertainty: Tensor) -> Tensor:
        if self.threshold is not None:
            trusted = self._most.to(uncertainty.device)(uncertainty) <= self.threshold
        else:
            likely, still = (x.to(uncertainty.device)(uncertainty) for x in (self._likely, self._still))
            trusted = likely < self.limit * still
        return trusted.to(uncertainty.dtype)


class Caution(NamedTuple):
    """What a run's calibration is worth to whoever plans or learns in its model."""

    trust: Trust

    def weight(self, value: float = -1.0, unusual: bool = False) -> RewardErrorWeight:
        """For ``uncertainty_weight`` of planners, actors and dreams."""
        return RewardErrorWeight.of(self.trust, value, unusual)

    def truncation(self, threshold: float | None = None) -> AtTrustHorizon:
        """For ``truncation`` of planners and actors."""
        return AtTrustHorizon.of(self.trust, threshold)

    def reward_error(self, uncertainty: Tensor) -> Tensor:
        """The error of the reward to be expected (M, H) of rollouts of this uncertainty (M, H)."""
        return self.weight(1.0).price(uncertainty)


class _Expected(nn.Module):
    """An ``ErrorModel`` of the uncertainty along rollouts (M, H), at one of its probabilities, with gradients.

    Rollouts that are more unsure than the held-out dreams were are beyond what it was fitted on: there the error grows
    in proportion to the uncertainty, or to the sum of it, whichever is further out; not at all if not ``beyond``.
    """

    bias: Tensor  # (H,)
    weight: Tensor  # (H, 2)
    floor: Tensor  # (2,)
    top: Tensor  # (H, 2)

    def __init__(self, model: ErrorModel, probability: float, beyond: bool = True) -> None:
        super().__init__()
        columns = [Clues._fields.index(name) for name in ALONG]
        ratio = model.ratio[:, PROBABILITIES.index(probability)]  # (H,), not finite where nothing is known
        known = np.maximum.accumulate(np.where(np.isfinite(ratio), np.arange(len(ratio)), -1))
        if known.max(initial=-1) < 0:
            raise UserError("the calibration knows nothing of this error: worldmodel report fits it again")
        known = np.where(known < 0, np.isfinite(ratio).argmax(), known)
        bias = model.bias[known] + np.log(np.maximum(ratio[known], 1e-12))
        self.beyond = beyond
        buffers = {"bias": bias, "weight": model.weight[known][:, columns], "floor": model.floor[columns]}
        for name, x in (buffers | {"top": model.top[:, columns] + model.floor[columns]}).items():
            self.register_buffer(name, torch.from_numpy(x).float(), persistent=False)

    def forward(self, uncertainty: Tensor) -> Tensor:
        likely, growth = self._parts(uncertainty)
        return likely * growth if self.beyond else likely

    def excess(self, uncertainty: Tensor) -> Tensor:
        """By how much (M, H) the error is larger than that of the most unsure dreams that it was fitted on, or 0."""
        likely, growth = self._parts(uncertainty)
        return likely * (growth - 1)

    def _parts(self, uncertainty: Tensor) -> tuple[Tensor, Tensor]:
        """The error (M, H) as far as it is known, and by how much it has grown beyond, 1 or more."""
        step = torch.arange(uncertainty.shape[1], device=uncertainty.device).clamp(max=len(self.bias) - 1)
        along = torch.stack([uncertainty, uncertainty.cumsum(1)], -1).clamp_min(0)  # (M, H, 2), as ``ALONG`` has them
        clues, top = along + self.floor, self.top[step]
        likely = (self.bias[step] + (self.weight[step] * torch.minimum(clues, top).log()).sum(-1)).exp()
        return likely, (clues / top).amax(-1).clamp_min(1)


def _read(calibration: str) -> Trust:
    path = Path(calibration)
    if not path.is_file():
        raise UserError(f"there is no calibration {path}: worldmodel report fits a run's")
    return Trust.from_json(path.read_text())


def _along(trust: Trust) -> Trust:
    if trust.along is None:
        raise UserError("the calibration says nothing of uncertainty along a rollout: worldmodel report fits it again")
    return trust.along
