"""How large the error of a dream is to be expected, by what it shows of itself, step by step.

Legend: n dreams, H horizon, C clues, P probabilities; [:, t] is t + 1 steps after the last image.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

Steps = np.ndarray  # (n, H) float64, NaN where it is not known

LEVELS = (0.5, 0.8, 0.9, 0.95)
PROBABILITIES = tuple(sorted({0.5, *(round((1 + s * level) / 2, 6) for level in LEVELS for s in (-1, 1))}))
_AROUND, _RIDGE = 2, 0.1  # steps before and after that a step's function is fitted with; shrinkage of its weights
_TINY = 1e-9


class Clues(NamedTuple):
    """What n dreams show of themselves, (n, H) each. All are 0 or more, and the more the worse."""

    pixels: Steps  # mean over pixels of the members' deviation, in [0, 0.5]
    reward: Steps  # deviation over members of the reward of the step
    total: Steps  # the same of the sum of rewards so far
    latent: Steps  # mean over dimensions of the variance over members of the latent
    drawn_pixels: Steps  # mean absolute difference in pixels of rollouts with drawn latents from the dream, in [0, 1]
    drawn_reward: Steps  # deviation over the same rollouts, from a drawn beginning, of the reward of the step
    drawn_total: Steps  # the same of the sum of rewards so far
    uncertainty: Steps  # epistemic, of the step along the dream itself; 1 is usual
    so_far: Steps  # the sum of it
    motion: Steps  # mean absolute difference in pixels from the picture of the last state that was seen, in [0, 1]
    scene: Steps  # the same from the mean picture of the data: where much is to be seen, much can be wrong
    level: Steps  # size of the imagined reward
    fallen: Steps  # how far it has fallen below the best of the dream so far
    reconstruction: Steps  # mean squared error in pixels of the last state that was seen: what is not drawn is lost


ALONG = ("uncertainty", "so_far")  # those that every rollout with uncertainty has, also a planner's


class Expected(NamedTuple):
    """An error that is to be expected of n dreams."""

    median: Steps  # as likely to be more as to be less
    quantiles: np.ndarray  # (n, H, P), rising; 0 and infinite where the dreams were too few to tell

    def band(self, level: float) -> tuple[Steps, Steps]:
        """Lower and upper end of the central band that covers ``level``.

        Raises:
            ValueError: it is none of ``LEVELS``.
        """
        if level not in LEVELS:
            raise ValueError(f"bands cover one of {', '.join(map(str, LEVELS))}, not {level}")
        low, high = (PROBABILITIES.index(round((1 + s * level) / 2, 6)) for s in (-1, 1))
        return self.quantiles[..., low], self.quantiles[..., high]


class ErrorModel(NamedTuple):
    """log(error) = bias + weight . log(clues + floor), for each step; weights are 0 or more, so it is monotone."""

    bias: np.ndarray  # (H,)
    weight: np.ndarray  # (H, C)
    floor: np.ndarray  # (C,)
    ratio: np.ndarray  # (H, P) quantiles of error / function, of dreams that the function was not fitted on
    top: np.ndarray  # (H, C) clues that one dream in twenty was above

    def function(self, clues: Clues) -> Steps:
        """What the error (n, H) depends on, without its size."""
        return np.exp(self.bias + (self.weight * logarithms(clues, self.floor)).sum(-1))

    def __call__(self, clues: Clues) -> Expected:
        quantiles = self.function(clues)[..., None] * self.ratio
        return Expected(quantiles[..., PROBABILITIES.index(0.5)], quantiles)

    def of(self, part: slice) -> ErrorModel:
        """The same for some of the steps."""
        return self._replace(**{name: getattr(self, name)[part] for name in ("bias", "weight", "ratio", "top")})


def fit_error_model(
    clues: Clues, error: Steps, chosen: np.ndarray, reads: Collection[str] = Clues._fields
) -> ErrorModel:
    """The function alone, of the dreams that are chosen (n,) bool; nothing is known of its bands yet.

    Args:
        clues: of n dreams.
        error: (n, H)
        chosen: whose errors are looked at.
        reads: the clues that it may look at.
    """
    floor = np.array([0.05 * np.nanmedian(x) + _TINY for x in clues])
    none = np.tile(np.where(np.array(PROBABILITIES) < 0.5, 0.0, math.inf), (error.shape[1], 1))
    seen = np.array([name in reads for name in Clues._fields])
    bias, weight = _fit_steps(logarithms(clues, floor)[chosen], error[chosen], seen)
    top = np.stack([np.quantile(x[chosen], 0.95, axis=0) for x in clues], -1)  # (H, C)
    return ErrorModel(bias, weight, floor, ratio=none, top=top)


def out_of_fold(clues: Clues, error: Steps, fold: np.ndarray, reads: Collection[str]) -> Steps:
    """What each dream's error (n, H) depends on, by a function of the other folds (n,) than its own."""
    found = np.full_like(error, math.nan)
    for own in (fold == number for number in np.unique(fold)):
        model = fit_error_model(clues, error, ~own, reads)
        found[own] = model.function(Clues(*(x[own] for x in clues)))
    return found


def with_bands(model: ErrorModel, foretold: Steps, error: Steps) -> ErrorModel:
    """The same function with bands from errors (n, H) and what functions that had not seen them made of them."""
    ratio = error / foretold
    return model._replace(ratio=np.stack([_quantiles(x[~np.isnan(x)]) for x in ratio.T]))


def logarithms(clues: Clues, floor: np.ndarray) -> np.ndarray:
    """(n, H, C)"""
    return np.log(np.stack(clues, -1) + floor)


def _fit_steps(logs: np.ndarray, error: Steps, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bias (H,) and weight (H, C), by ridge regression with weights of 0 or more, over the steps nearby.

    Args:
        logs: (n, H, C)
        error: (n, H)
        seen: (C,) bool, which clues may have a weight.
    """
    horizon, clues = logs.shape[1:]
    bias, weight = np.zeros(horizon), np.zeros((horizon, clues))
    for t in range(horizon):
        near = slice(max(0, t - _AROUND), t + _AROUND + 1)
        x, y = logs[:, near].reshape(-1, clues), error[:, near].ravel()
        x, y = x[~np.isnan(y)], y[~np.isnan(y)]
        if not len(y):
            continue
        y = np.log(y + 0.05 * np.median(y) + _TINY)  # or errors of nothing would rule the logarithm
        middle, spread = x.mean(0), x.std(0) + _TINY
        moved = np.where(seen & (spread > 1e-6), (x - middle) / spread, 0.0)
        shrunk = np.concatenate([moved, math.sqrt(_RIDGE * len(y)) * np.eye(clues)])
        weight[t] = nnls(shrunk, np.concatenate([y - y.mean(), np.zeros(clues)]))[0] / spread
        bias[t] = y.mean() - (weight[t] * middle).sum()
    return bias, weight


def _quantiles(scores: np.ndarray) -> np.ndarray:
    """The scores (P,) that a new one is below with each probability: no more often below a half, no less above."""
    ordered, n = np.sort(scores), len(scores)
    bounds = np.concatenate([[0.0], ordered, [math.inf]])
    found = []
    for p in PROBABILITIES:
        exact = round((n + 1) * p, 6)  # rounded, for 100 * 0.55 is above 55
        found.append(bounds[math.floor(exact) if p < 0.5 else math.ceil(exact)])
    if n:
        found[PROBABILITIES.index(0.5)] = np.median(ordered)
    return np.array(found)
