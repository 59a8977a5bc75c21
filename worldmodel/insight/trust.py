"""How wrong a dream is likely to be by now, in bands that cover, and for how many steps it is worth looking at.

Once a calibration is fitted, nothing here asks for the truth. What a dream shows of itself are ``Clues``: how far the
members' own rollouts of the same actions have come apart by now, and how far the picture has moved from the last one
that was seen. The expected error is a function of them that never falls as one of them rises, fitted on held-out
episodes; its bands and the trust horizon are split conformal (Lei et al. 2018) on episodes that the function has not
seen. What covers there covers dreams like those: other weights, tasks or ways to act are promised nothing.

Legend: n dreams, H horizon, C clues, P probabilities; [:, t] is t + 1 steps after the last image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from worldmodel.errors import UserError

Steps = np.ndarray  # (n, H) float64, NaN where it is not known

QUANTITIES = ("pixels", "reward", "return", "still")
LEVELS = (0.5, 0.8, 0.9, 0.95)
BETTER = 0.9  # share of dreams that are to be no worse than the last picture up to their trust horizon
_PROBABILITIES = tuple(sorted({0.5, *(round((1 + s * level) / 2, 6) for level in LEVELS for s in (-1, 1))}))
_LEAST = 39  # dreams that a band of 95% takes: one in forty lies below it, and one above
_AROUND, _RIDGE = 2, 0.1  # steps before and after that a step's function is fitted with; shrinkage of its weights
_TINY = 1e-9


class Clues(NamedTuple):
    """What n dreams show of themselves, (n, H) each. All are 0 or more, and the more the worse."""

    pixels: Steps  # mean over pixels of the members' deviation, in [0, 0.5]
    reward: Steps  # deviation over members of the reward of the step
    total: Steps  # the same of the sum of rewards so far
    latent: Steps  # mean over dimensions of the variance over members of the latent
    motion: Steps  # mean absolute difference in pixels from the picture of the last state that was seen, in [0, 1]


class Origin(NamedTuple):
    """What a calibration was fitted on, and so what it is good for."""

    task: str
    weights: str  # a digest of the world model's
    updates: int
    episodes: int
    context: int  # records that were seen before a dream


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
        low, high = (_PROBABILITIES.index(round((1 + s * level) / 2, 6)) for s in (-1, 1))
        return self.quantiles[..., low], self.quantiles[..., high]


class ErrorModel(NamedTuple):
    """log(error) = bias + weight . log(clues + floor), for each step; weights are 0 or more, so it is monotone."""

    bias: np.ndarray  # (H,)
    weight: np.ndarray  # (H, C)
    floor: np.ndarray  # (C,)
    ratio: np.ndarray  # (H, P) quantiles of error / function, of dreams that it was not fitted on

    def function(self, clues: Clues) -> Steps:
        return np.exp(self.bias + (self.weight * _logarithms(clues, self.floor)).sum(-1))

    def __call__(self, clues: Clues) -> Expected:
        quantiles = self.function(clues)[..., None] * self.ratio
        return Expected(quantiles[..., _PROBABILITIES.index(0.5)], quantiles)


class Trust(NamedTuple):
    """What to expect of dreams like those that it was fitted on.

    ``limit`` is how large the expected error may become, as a multiple of the error that is expected of the last
    picture, before the dream may have fallen behind it.
    """

    origin: Origin
    models: dict[str, ErrorModel]  # of each of ``QUANTITIES``; ``still`` is the last picture's error in pixels
    limit: float

    @property
    def horizon(self) -> int:
        """H, the most that is known of."""
        return len(self.models["pixels"].bias)

    def expected(self, clues: Clues, quantity: str = "pixels") -> Expected:
        """The error by now of n dreams of up to H steps, in one of ``QUANTITIES``.

        Raises:
            ValueError: they are longer than what was fitted.
        """
        steps = clues.pixels.shape[1]
        if steps > self.horizon:
            raise ValueError(f"the calibration knows {self.horizon} steps, and the dreams have {steps}")
        model = self.models[quantity]
        return ErrorModel(model.bias[:steps], model.weight[:steps], model.floor, model.ratio[:steps])(clues)

    def trusted_steps(self, clues: Clues, threshold: float | None = None) -> np.ndarray:
        """The trust horizon (n,): steps until the dream is likely worse than if the last picture stayed.

        In 90% of dreams the error in pixels is no more than the last picture's up to it (conformal risk: the limit is
        the tenth percentile of what the ratio of both expected errors had come to where dreams fell behind).

        Args:
            clues: of n dreams.
            threshold: an error in pixels instead, in [0, 1]: steps until it is exceeded with a probability of 10% or
                more at one of them.
        """
        behind = threshold is None
        worse = self._ratio(clues) >= self.limit if behind else self.expected(clues).band(0.8)[1] > threshold
        return np.where(worse.any(1), worse.argmax(1), worse.shape[1])

    def _ratio(self, clues: Clues) -> Steps:
        return self.expected(clues).median / self.expected(clues, "still").median

    def check(self, task: str, weights: str, updates: int) -> None:
        """Find that this is the calibration of these weights.

        Raises:
            UserError: it is of another task or of other weights.
        """
        if self.origin.task != task:
            raise UserError(f"the calibration is of the task {self.origin.task}, not of {task}: {_AGAIN}")
        if self.origin.weights != weights:
            was = self.origin.updates
            what = f"those after {was:,} updates" if was != updates else f"others, also after {was:,} updates"
            raise UserError(f"the calibration is stale, of other weights ({what}): {_AGAIN}")

    def to_json(self) -> str:
        """All of it; what is infinite is null."""
        models = {
            name: {key: _plain(values) for key, values in model._asdict().items()}
            for name, model in self.models.items()
        }
        facts = {"fitted_on": self.origin._asdict(), "probabilities": list(_PROBABILITIES), "limit": self.limit}
        return json.dumps(facts | {"clues": list(Clues._fields), "models": models}, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Trust:
        """What ``to_json`` has written.

        Raises:
            UserError: it is something else, or of another version.
        """
        try:
            held = json.loads(text)
            if held["clues"] != list(Clues._fields) or held["probabilities"] != list(_PROBABILITIES):
                raise ValueError("it is of another version")
            parts = {name: {k: _array(x) for k, x in held["models"][name].items()} for name in QUANTITIES}
            models = {name: ErrorModel(**part) for name, part in parts.items()}
            return Trust(Origin(**held["fitted_on"]), models, float(held["limit"]))
        except (ValueError, KeyError, TypeError) as cause:
            raise UserError(f"this is no calibration that can be read ({cause}): {_AGAIN}") from cause


_AGAIN = "worldmodel report fits it again"


def fit_trust(clues: Clues, errors: Mapping[str, Steps], episode: np.ndarray, origin: Origin) -> Trust:
    """Fit the functions on one half of the episodes, and all that is conformal on the other.

    Args:
        clues: of n dreams of H steps, of held-out episodes.
        errors: each of ``QUANTITIES`` (n, H), 0 or more, NaN where the episode was over.
        episode: (n,) which episode each dream is of.
        origin: what they are of.

    Raises:
        UserError: they are too few; says how many it takes.
    """
    names, first = np.unique(episode), first_half(episode)
    count = int(min(first.sum(), (~first).sum()))
    if count < _LEAST:
        needed = max(2, math.ceil(len(names) * _LEAST / max(1, count)))
        raise UserError(
            f"a calibration takes {_LEAST} dreams in each half of the episodes, and {len(names)} episodes gave "
            f"{count}: about {needed} episodes will do"
        )
    return conformed(fit_functions(clues, errors, first, origin), clues, errors, ~first)


def first_half(episode: np.ndarray) -> np.ndarray:
    """Of which dreams the episode is in the first half, to which functions are fitted, (n,) bool."""
    return np.unique(episode, return_inverse=True)[1] % 2 == 0


def fit_functions(clues: Clues, errors: Mapping[str, Steps], chosen: np.ndarray, origin: Origin) -> Trust:
    """What ``fit_trust`` fits on the dreams that are chosen (n,); nothing is known of bands and limit yet."""
    floor = np.array([0.05 * np.nanmedian(x) + _TINY for x in clues])
    logs = _logarithms(clues, floor)[chosen]
    horizon = clues.pixels.shape[1]
    none = np.tile(np.where(np.array(_PROBABILITIES) < 0.5, 0.0, math.inf), (horizon, 1))
    models = {name: ErrorModel(*_fit_steps(logs, errors[name][chosen]), floor=floor, ratio=none) for name in QUANTITIES}
    return Trust(origin, models, limit=0.0)


def conformed(trust: Trust, clues: Clues, errors: Mapping[str, Steps], chosen: np.ndarray) -> Trust:
    """The same functions with the bands and the limit of the dreams that are chosen (n,)."""
    models = {}
    for name, model in trust.models.items():
        ratio = errors[name][chosen] / model.function(clues)[chosen]  # (n, H)
        models[name] = model._replace(ratio=np.stack([_quantiles(x[~np.isnan(x)]) for x in ratio.T]))
    whole = trust._replace(models=models)
    return whole._replace(
        limit=_fit_limit(whole._ratio(clues)[chosen], errors["pixels"][chosen], errors["still"][chosen])
    )


def last_better(error: Steps, still: Steps) -> np.ndarray:
    """The true trust horizon (n,): steps until the dream's error in pixels is more than the last picture's."""
    worse = error > still  # False where nothing is known
    return np.where(worse.any(1), worse.argmax(1), (~np.isnan(error)).sum(1))


def _logarithms(clues: Clues, floor: np.ndarray) -> np.ndarray:
    return np.log(np.stack(clues, -1) + floor)  # (n, H, C)


def _fit_steps(logs: np.ndarray, error: Steps) -> tuple[np.ndarray, np.ndarray]:
    """Bias (H,) and weight (H, C), by ridge regression with weights of 0 or more, over the steps nearby."""
    horizon, clues = logs.shape[1:]
    least = 0.02 * np.nanmedian(error) + _TINY  # or errors of nothing would rule the logarithm
    bias, weight = np.zeros(horizon), np.zeros((horizon, clues))
    for t in range(horizon):
        near = slice(max(0, t - _AROUND), t + _AROUND + 1)
        x, y = logs[:, near].reshape(-1, clues), np.log(error[:, near].ravel() + least)
        x, y = x[~np.isnan(y)], y[~np.isnan(y)]
        if not len(y):
            continue
        middle, spread = x.mean(0), x.std(0) + _TINY
        moved = np.where(spread > 1e-6, (x - middle) / spread, 0.0)
        shrunk = np.concatenate([moved, math.sqrt(_RIDGE * len(y)) * np.eye(clues)])
        weight[t] = nnls(shrunk, np.concatenate([y - y.mean(), np.zeros(clues)]))[0] / spread
        bias[t] = y.mean() - (weight[t] * middle).sum()
    return bias, weight


def _quantiles(scores: np.ndarray) -> np.ndarray:
    """The scores (P,) that a new one is below with each probability: no more often below a half, no less above."""
    ordered, n = np.sort(scores), len(scores)
    bounds = np.concatenate([[0.0], ordered, [math.inf]])
    found = []
    for p in _PROBABILITIES:
        exact = round((n + 1) * p, 6)  # rounded, for 100 * 0.55 is above 55
        found.append(bounds[math.floor(exact) if p < 0.5 else math.ceil(exact)])
    if n:
        found[_PROBABILITIES.index(0.5)] = np.median(ordered)
    return np.array(found)


def _fit_limit(ratio: Steps, error: Steps, still: Steps) -> float:
    """See ``Trust.trusted_steps``: dreams fall behind below the limit in ``1 - BETTER`` of cases at most."""
    better, risen = last_better(error, still), np.maximum.accumulate(ratio, 1)
    behind = better < (~np.isnan(error)).sum(1)
    fell = np.sort(np.where(behind, risen[np.arange(len(risen)), np.minimum(better, risen.shape[1] - 1)], math.inf))
    rank = math.floor(round((len(fell) + 1) * (1 - BETTER), 6))
    limit = fell[rank - 1] if rank else 0.0
    return float(min(limit, 1e9))  # no dream fell behind


def _plain(values: np.ndarray) -> Any:
    return np.where(np.isinf(values), None, values.astype(object)).tolist()


def _array(values: Any) -> np.ndarray:
    array = np.array(values, dtype=object)
    return np.where(np.equal(array, None), math.inf, array).astype(float)
