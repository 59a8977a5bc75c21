"""How wrong a dream is likely to be by now, in bands that cover, and for how many steps it is worth looking at.

Once a calibration is fitted, nothing here asks for the truth. What a dream shows of itself are ``Clues``: how far the
members' own rollouts of the same actions have come apart by now, how unsure its steps were, how far the picture has
moved. The expected error is a function of them that never falls as one of them rises, fitted on held-out episodes; its
bands and the trust horizon are cross-conformal (Vovk 2015): of each fold of the episodes by a function of the others,
so that no episode is lost to either. What covers there covers dreams like those: other weights, tasks or ways to act
are promised nothing.

Legend: n dreams, H horizon; [:, t] is t + 1 steps after the last image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from worldmodel.errors import UserError
from worldmodel.insight.error_model import (
    ALONG,
    LEVELS,
    PROBABILITIES,
    Clues,
    ErrorModel,
    Expected,
    Steps,
    fit_error_model,
    out_of_fold,
    with_bands,
)

__all__ = ["LEVELS", "QUANTITIES", "Clues", "Expected", "Origin", "Steps", "Trust", "fit_trust", "last_better"]

QUANTITIES = ("pixels", "reward", "return", "still")
BETTER = 0.9  # share of dreams that are to be no worse than the last picture up to their trust horizon
FOLDS = 5
_LEAST = 39  # dreams that a band of 95% takes: one in forty lies below it, and one above


class Origin(NamedTuple):
    """What a calibration was fitted on, and so what it is good for."""

    task: str
    weights: str  # a digest of the world model's
    updates: int
    episodes: int
    context: int  # records that were seen before a dream


class Trust(NamedTuple):
    """What to expect of dreams like those that it was fitted on.

    ``limit`` is how large the expected error may become, as a multiple of the error that is expected of the last
    picture, before the dream may have fallen behind it.
    """

    origin: Origin
    models: dict[str, ErrorModel]  # of each of ``QUANTITIES``; ``still`` is the last picture's error in pixels
    limit: float
    along: Trust | None = None  # the same from the uncertainty along the dream alone, which planners and actors have

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
        return self.models[quantity].of(slice(steps))(clues)

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

    def only(self, step: int) -> Trust:
        """What is known of one step, from 1 to H: of clues (n, 1)."""
        return self._replace(models={name: x.of(slice(step - 1, step)) for name, x in self.models.items()})

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
        facts = {"fitted_on": self.origin._asdict(), "probabilities": list(PROBABILITIES), **self._facts()}
        along = None if self.along is None else self.along._facts()
        return json.dumps(facts | {"clues": list(Clues._fields), "along": along}, allow_nan=False) + "\n"

    def _facts(self) -> dict[str, Any]:
        models = {
            name: {key: _plain(values.tolist()) for key, values in model._asdict().items()}
            for name, model in self.models.items()
        }
        return {"limit": self.limit, "models": models}

    @staticmethod
    def from_json(text: str) -> Trust:
        """What ``to_json`` has written.

        Raises:
            UserError: it is something else, or of another version.
        """
        try:
            held = json.loads(text)
            if held["clues"] != list(Clues._fields) or held["probabilities"] != list(PROBABILITIES):
                raise ValueError("it is of another version")
            origin = Origin(**held["fitted_on"])
            along = None if held["along"] is None else _read(held["along"], origin)
            return _read(held, origin)._replace(along=along)
        except (ValueError, KeyError, TypeError) as cause:
            raise UserError(f"this is no calibration that can be read ({cause}): {_AGAIN}") from cause


_AGAIN = "worldmodel report fits it again"


def fit_trust(clues: Clues, errors: Mapping[str, Steps], episode: np.ndarray, origin: Origin) -> Trust:
    """Fit the functions on all episodes, and all that is conformal on what functions of other episodes had foretold.

    Args:
        clues: of n dreams of H steps, of held-out episodes.
        errors: each of ``QUANTITIES`` (n, H), 0 or more, NaN where the episode was over.
        episode: (n,) which episode each dream is of.
        origin: what they are of.

    Raises:
        UserError: they are too few; says how many it takes.
    """
    names, count = np.unique(episode), len(episode)
    if count < _LEAST or len(names) < 2:
        needed = max(2, math.ceil(len(names) * _LEAST / max(1, count)))
        raise UserError(
            f"a calibration takes {_LEAST} dreams of 2 episodes or more, and {len(names)} episodes gave {count}: about "
            f"{needed} episodes will do"
        )
    return cross_fitted(clues, errors, episode, origin)


def cross_fitted(clues: Clues, errors: Mapping[str, Steps], episode: np.ndarray, origin: Origin) -> Trust:
    """``fit_trust`` of however few dreams of 2 episodes or more: bands that they cannot tell are infinite."""
    fold = folds(episode, FOLDS)
    whole, along = (_fitted(clues, errors, fold, origin, reads=reads) for reads in (Clues._fields, ALONG))
    return whole._replace(along=along)


def folds(episode: np.ndarray, count: int) -> np.ndarray:
    """Which of so many folds each dream is in (n,): those of an episode are alike, and stay together."""
    return np.unique(episode, return_inverse=True)[1] % count


def _fitted(
    clues: Clues, errors: Mapping[str, Steps], fold: np.ndarray, origin: Origin, *, reads: Collection[str]
) -> Trust:
    models, medians = {}, {}
    for name in QUANTITIES:
        model = fit_error_model(clues, errors[name], np.ones(len(fold), bool), reads)
        foretold = out_of_fold(clues, errors[name], fold, reads)
        models[name] = with_bands(model, foretold, errors[name])
        medians[name] = foretold * models[name].ratio[:, PROBABILITIES.index(0.5)]
    return Trust(origin, models, _fit_limit(medians["pixels"] / medians["still"], errors["pixels"], errors["still"]))


def last_better(error: Steps, still: Steps) -> np.ndarray:
    """The true trust horizon (n,): steps until the dream's error in pixels is more than the last picture's."""
    worse = error > still  # False where nothing is known
    return np.where(worse.any(1), worse.argmax(1), (~np.isnan(error)).sum(1))


def _fit_limit(ratio: Steps, error: Steps, still: Steps) -> float:
    """See ``Trust.trusted_steps``: dreams fall behind below the limit in ``1 - BETTER`` of cases at most."""
    better, risen = last_better(error, still), np.maximum.accumulate(ratio, 1)
    behind = better < (~np.isnan(error)).sum(1)
    fell = np.sort(np.where(behind, risen[np.arange(len(risen)), np.minimum(better, risen.shape[1] - 1)], math.inf))
    rank = math.floor(round((len(fell) + 1) * (1 - BETTER), 6))
    limit = fell[rank - 1] if rank else 0.0
    return float(min(limit, 1e9))  # no dream fell behind


def _read(held: Mapping[str, Any], origin: Origin) -> Trust:
    parts = {name: {k: _array(x) for k, x in held["models"][name].items()} for name in QUANTITIES}
    return Trust(origin, {name: ErrorModel(**part) for name, part in parts.items()}, float(held["limit"]))


def _plain(values: Any) -> Any:
    """Nested lists with null for what is infinite."""
    if isinstance(values, list):
        return [_plain(x) for x in values]
    return None if math.isinf(values) else values


def _array(values: Any) -> np.ndarray:
    def filled(x: Any) -> Any:
        return [filled(y) for y in x] if isinstance(x, list) else math.inf if x is None else float(x)

    return np.array(filled(values))
