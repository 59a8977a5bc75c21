"""What a calibration says of dreams that are stepped, and what it is worth. N dreams, A action size."""

from __future__ import annotations

import torch
from torch import Tensor

from worldmodel.control.dreams import Dreams, DreamStep
from worldmodel.control.truncation import NoTruncation, Truncation
from worldmodel.insight.caution import AtTrustHorizon, RewardErrorWeight
from worldmodel.insight.dream_judge import DreamJudge
from worldmodel.insight.trust import Trust


def check_caution(
    dreams: Dreams, weight: float | RewardErrorWeight, truncation: Truncation, trust: Trust | None
) -> None:
    """Find that what is asked of the dreams' uncertainty and errors can be known.

    Raises:
        ValueError: it cannot.
    """
    by_error = isinstance(weight, RewardErrorWeight)
    if isinstance(truncation, AtTrustHorizon):  # it looks along a rollout, and here steps come alone
        raise ValueError("a dream ends at its trust horizon with trust, and not with this truncation")
    if by_error and trust is None:
        raise ValueError("what an expected error is worth wants trust, the calibration that knows it")
    if trust is not None and dreams.reconstruction is None:
        raise ValueError("trust wants dreams that know the reconstruction of their starts")
    by_uncertainty = (not by_error and weight != 0) or not isinstance(truncation, NoTruncation)
    if by_uncertainty and not dreams.uncertainty:
        raise ValueError("uncertainty_weight and truncation want dreams that measure their uncertainty")


def judged(judge: DreamJudge | None, dreams: Dreams, action: Tensor) -> dict[str, Tensor]:
    """What is to be expected of dreams that have taken an action (N, A), (N,) each; nothing without a calibration."""
    if judge is None:
        return {}
    found = judge.step(dreams.state, action)
    errors = {"expected_error": found.median, "expected_reward_error": found.reward}
    known = {name: torch.from_numpy(x).to(dreams.device, torch.float32) for name, x in errors.items()}
    return known | {"trusted": torch.from_numpy(found.trusted).to(dreams.device)}


def with_price(step: DreamStep, weight: float | RewardErrorWeight, known: dict[str, Tensor]) -> Tensor:
    """The reward (N,) with what uncertainty, or the error that is to be expected, adds to it."""
    if isinstance(weight, RewardErrorWeight):
        return step.reward + weight.value * known["expected_reward_error"].nan_to_num()
    return step.reward + weight * step.uncertainty
