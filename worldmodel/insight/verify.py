"""What a calibration is worth, on episodes that it has not seen. Legend: m dreams, H horizon."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from worldmodel.errors import UserError
from worldmodel.insight.calibration import rank_correlation
from worldmodel.insight.error_model import LEVELS, PROBABILITIES, Clues, Expected, Steps
from worldmodel.insight.trust import FOLDS, QUANTITIES, Origin, cross_fitted, folds, last_better

_SHOWN = (1, 5, 15, 40)  # steps


class Verified(NamedTuple):
    """Dreams, each judged by what was fitted on other episodes alone."""

    errors: dict[str, Steps]  # (m, H) each of ``QUANTITIES``, NaN where the episode was over
    expected: dict[str, Expected]  # the same
    trusted: np.ndarray  # (m,) trust horizons
    true: np.ndarray  # (m,) steps until the dream was worse than the last picture

    def coverage(self, quantity: str, level: float) -> np.ndarray:
        """Share of errors (H,) in the band of this level; NaN where there is no band, or nothing is known."""
        return covered(self.expected[quantity], self.errors[quantity], level)

    def correlation(self, quantity: str) -> np.ndarray:
        """Spearman's rank correlation (H,) of expected and true error; NaN where it cannot be said."""
        return np.array(
            [_rank(*x) for x in zip(self.expected[quantity].median.T, self.errors[quantity].T, strict=True)]
        )

    def trapped(self, quantity: str) -> np.ndarray:
        """Share (H,) of the worst tenth of dreams by then whose expected error is below the median (Biased Dreams).

        A half would be chance; NaN where nothing is known.
        """
        return np.array(
            [_missed(*x) for x in zip(self.expected[quantity].median.T, self.errors[quantity].T, strict=True)]
        )

    @property
    def better(self) -> float:
        """Share of the dreams that are no worse than the last picture up to their trust horizon."""
        return float((self.trusted <= self.true).mean())

    def rows(self, **given: Any) -> list[dict[str, Any]]:
        """All numbers, as ``report.table_rows`` gives them."""
        found: list[dict[str, Any]] = []

        def add(case: str, metric: str, values: np.ndarray) -> None:
            for step, x in enumerate(values.tolist(), 1):
                row = {"measure": "expected", "case": case, "metric": metric, "horizon": step}
                found.append({**given, **row, "value": x if math.isfinite(x) else None})

        for name in QUANTITIES:
            add(name, "rank_correlation", self.correlation(name))
            add(name, "trapped", self.trapped(name))
            for level in LEVELS:
                add(name, f"coverage_{level:g}", self.coverage(name, level))
        horizons = {"trusted": np.median(self.trusted), "true": np.median(self.true), "better": self.better}
        for case, value in horizons.items():
            row = {"measure": "expected", "case": case, "metric": "trust_horizon", "horizon": None}
            found.append({**given, **row, "value": float(value)})
        return found


def covered(expected: Expected, error: Steps, level: float) -> np.ndarray:
    """See ``Verified.coverage``."""
    low, high = expected.band(level)
    known = ~np.isnan(error) & np.isfinite(high)
    inside = ((low <= error) & (error <= high) & known).sum(0)
    return np.where(known.any(0), inside / np.maximum(1, known.sum(0)), math.nan)


def shown_steps(horizon: int) -> list[int]:
    """Of the steps 1 to H those that tables show."""
    return sorted({step for step in (*_SHOWN, horizon) if step <= horizon})


def verify_by_episode(clues: Clues, errors: Mapping[str, Steps], episode: np.ndarray, origin: Origin) -> Verified:
    """Judge each fold of the episodes by what ``fit_trust`` makes of the others.

    Args:
        clues, errors, episode, origin: as for ``fit_trust``.

    Raises:
        UserError: there are fewer than 4 episodes.
    """
    count = len(np.unique(episode))
    if count < 4:
        raise UserError(f"a calibration is tested on 4 episodes or more, got {count}")
    fold = folds(episode, FOLDS)
    trusted = np.zeros(len(fold), int)
    quantiles = {name: np.zeros((*errors[name].shape, len(PROBABILITIES))) for name in QUANTITIES}
    for own in (fold == number for number in np.unique(fold)):
        others = {name: x[~own] for name, x in errors.items()}
        trust = cross_fitted(Clues(*(x[~own] for x in clues)), others, episode[~own], origin)
        part = Clues(*(x[own] for x in clues))
        trusted[own] = trust.trusted_steps(part)
        for name in QUANTITIES:
            quantiles[name][own] = trust.expected(part, name).quantiles
    expected = {name: Expected(x[..., PROBABILITIES.index(0.5)], x) for name, x in quantiles.items()}
    true = last_better(errors["pixels"], errors["still"])
    return Verified({name: errors[name] for name in QUANTITIES}, expected, trusted, true)


def _rank(expected: np.ndarray, error: np.ndarray) -> float:
    known = ~np.isnan(error) & np.isfinite(expected)
    return rank_correlation(expected[known], error[known]) if known.sum() >= 3 else math.nan


def _missed(expected: np.ndarray, error: np.ndarray) -> float:
    known = ~np.isnan(error) & np.isfinite(expected)
    if known.sum() < 10:
        return math.nan
    expected, error = expected[known], error[known]
    worst = error >= np.quantile(error, 0.9)
    return float((expected[worst] < np.median(expected)).mean())
