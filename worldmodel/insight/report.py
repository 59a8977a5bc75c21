"""Does a model know what it does not know? All the numbers of one model.

Legend: B sequences, T time, H horizon, n numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodel.insight.calibration import (
    HorizonErrors,
    Reliability,
    auroc,
    coverage,
    expected_calibration_error,
    fit_temperature,
    interval,
    interval_scale,
    joined,
    open_loop_errors,
    rank_correlation,
    reliability,
)
from worldmodel.insight.novelty import novelty
from worldmodel.insight.rollouts import reconstruction_error
from worldmodel.insight.shifts import SHIFTS, Shift, shifted
from worldmodel.insight.uncertainty import entropy, information, pairwise
from worldmodel.model.rssm import Posterior
from worldmodel.model.world_model import WorldModel
from worldmodel.types import SequenceBatch

_CHUNK = 32  # sequences that are filtered at once
_LEAST = 1e-9  # a deviation is never zero


class Calibration(NamedTuple):
    """What dreams are worth. [t] is t + 1 steps on; NaN where it cannot be said.

    Errors and correlations are of all sequences. The rest is of those that nothing was fitted to.
    """

    errors: dict[str, np.ndarray]  # (H,) means of latent, pixel, reward and return
    bias: np.ndarray  # (H,) mean of imagined minus real return
    correlation: dict[str, dict[str, np.ndarray]]  # (H,) of pixel and reward error with each measure
    pooled_correlation: dict[str, dict[str, float]]  # the same over all steps at once
    temperature: float  # on the deviation of the reward, by the median error
    ece: dict[str, float]  # of the reward, ``raw`` and with the ``temperature``
    reliability: dict[str, Reliability]  # the same two
    level: float
    coverage: dict[str, np.ndarray]  # (H,) of intervals on reward and return, scaled for each step
    pooled_coverage: dict[str, float]  # the same with one scale for all steps


def calibrate(
    errors: HorizonErrors, fit: Tensor | np.ndarray, level: float = 0.9, floor: float = 0.1, bins: int = 10
) -> Calibration:
    """Fit temperature and interval scales on some sequences, and see on the others what they are worth.

    The deviation of a reward is the spread of the members' rewards (``measures["reward"]``) plus ``floor`` times the
    root mean square error of the sequences that are fitted, so that a single member has one too. That of a return is
    the sum of its rewards' deviations: the spread of a member's sum is never more.

    Args:
        errors: of dreams, (B, H).
        fit: (B,) bool, the sequences to fit; best of other episodes than the rest.
        level: that intervals are to cover.
        floor: see above.
        bins: of the reliability.

    Raises:
        ValueError: there is no sequence to fit, or none to test.
    """
    chosen = np.asarray(fit, bool)
    if not 0 < chosen.sum() < len(chosen):
        raise ValueError(f"some sequences must be fitted and others tested, got {chosen.sum()} of {len(chosen)} to fit")
    wrong = _known(errors.imagined_reward - errors.reward, errors.valid)  # (B, H), NaN where the episode is over
    total = wrong.cumsum(1)
    found = {
        "latent": _known(errors.latent_error, errors.valid),
        "pixel": _known(errors.pixel_error, errors.valid),
        "reward": np.abs(wrong),
        "return": np.abs(total),
    }
    measures = {name: _known(x, errors.valid) for name, x in errors.measures.items()}
    typical = _number(lambda x: math.sqrt(np.square(x).mean()), 1, wrong[chosen])
    std = measures["reward"] + max(_LEAST, floor * np.nan_to_num(typical))
    factor = float(np.maximum(_LEAST, _number(fit_temperature, 1, std[chosen], wrong[chosen])))
    tested, sizes = wrong[~chosen], {"raw": std[~chosen], "temperature": factor * std[~chosen]}
    pairs = {error: {name: (x, found[error]) for name, x in measures.items()} for error in ("pixel", "reward")}
    split = {"reward": (wrong, std), "return": (total, std.cumsum(1))}
    return Calibration(
        errors={name: _steps(np.mean, 1, x) for name, x in found.items()},
        bias=_steps(np.mean, 1, total),
        correlation={
            error: {name: _steps(rank_correlation, 3, *x) for name, x in each.items()} for error, each in pairs.items()
        },
        pooled_correlation={
            error: {name: _number(rank_correlation, 3, *x) for name, x in each.items()} for error, each in pairs.items()
        },
        temperature=factor,
        ece={name: _number(expected_calibration_error, 1, x, tested) for name, x in sizes.items()},
        reliability={name: _reliability(x, tested, bins) for name, x in sizes.items()},
        level=level,
        coverage={name: _covered_steps(*x, chosen, level) for name, x in split.items()},
        pooled_coverage={name: _covered(*x, chosen, level) for name, x in split.items()},
    )


@torch.no_grad()
def horizon_errors(world_model: WorldModel, batch: SequenceBatch, context: int, horizon: int) -> HorizonErrors:
    """``open_loop_errors`` of many sequences (B, T), some at a time."""
    return joined([open_loop_errors(world_model, part, context, horizon) for part in _chunks(batch)])


@torch.no_grad()
def filter_uncertainty(world_model: WorldModel, posterior: Posterior) -> dict[str, Tensor]:
    """Uncertainties (B, T - 1) of a filter's step to each record but the first, which comes from nothing.

    ``entropy``, ``epistemic``, ``information`` and ``pairwise`` are of the prior, before the image is seen.
    ``surprise`` is KL(posterior || mixture of the priors) in nats, once it has been: no dream has it.
    """
    latents, prior = world_model.latents, posterior.prior[:, :, 1:]  # (K, B, T - 1, P)
    return {
        "entropy": entropy(latents, prior),
        "epistemic": world_model.uncertainty(prior),
        "information": information(latents, prior),
        "pairwise": pairwise(latents, prior),
        "surprise": latents.kl(posterior.state.params[:, 1:], latents.mixture(prior)),
    }


@torch.no_grad()
def step_measures(world_model: WorldModel, batch: SequenceBatch) -> dict[str, Tensor]:
    """Measures (n,) of the n records of many sequences (B, T) that a record of their episode precedes.

    Those of ``filter_uncertainty``; and, where there is a decoder, ``reconstruction``, the mean squared error of the
    posterior's picture.
    """
    measures = []
    for part in _chunks(batch):
        posterior = world_model.observe(part, mode=True)
        found = filter_uncertainty(world_model, posterior)
        if world_model.draws:
            found["reconstruction"] = reconstruction_error(world_model, posterior.state.feature, part.image)[:, 1:]
        measures.append({name: x[~part.is_first[:, 1:]] for name, x in found.items()})
    return {name: torch.cat([x[name] for x in measures]) for name in measures[0]}


def shift_auroc(
    world_model: WorldModel, batch: SequenceBatch, shifts: Mapping[str, Shift] = SHIFTS
) -> dict[str, dict[str, float]]:
    """AUROC of each of ``step_measures`` between shifted and real sequences, ``{shift: {measure: value}}``.

    ``novelty`` is what they say together.

    1 is: always more uncertain of shifted images; 0.5 is chance, which one member's epistemic uncertainty always is.
    """
    real = step_measures(world_model, batch)
    moved = {name: step_measures(world_model, shifted(batch, shift)) for name, shift in shifts.items()}
    real["novelty"] = torch.from_numpy(novelty(real, real))
    for found in moved.values():
        found["novelty"] = torch.from_numpy(novelty(found, real))
    return {name: {measure: auroc(x, real[measure]) for measure, x in found.items()} for name, found in moved.items()}


def table_rows(
    calibration: Calibration, aurocs: Mapping[str, Mapping[str, float]], **given: Any
) -> list[dict[str, Any]]:
    """All numbers, one to an object: measure, case, metric, horizon (null: all steps), value (null: unknown).

    Args:
        calibration, aurocs: what ``calibrate`` and ``shift_auroc`` have found.
        given: what every object holds besides.
    """
    rows: list[dict[str, Any]] = []

    def add(metric: str, measure: str | None, case: str | None, values: Any) -> None:
        steps = [(None, values)] if np.ndim(values) == 0 else enumerate(values.tolist(), 1)
        for step, x in steps:
            value = float(x) if math.isfinite(x) else None
            rows.append({**given, "measure": measure, "case": case, "metric": metric, "horizon": step, "value": value})

    for case, error in calibration.errors.items():
        add("error", None, case, error)
    add("bias", None, "return", calibration.bias)
    for each in (calibration.correlation, calibration.pooled_correlation):
        for case, measures in each.items():
            for measure, values in measures.items():
                add("rank_correlation", measure, case, values)
    add("temperature", "reward", "reward", calibration.temperature)
    for case, ece in calibration.ece.items():
        add("ece", "reward", case, ece)
    for covered in (calibration.coverage, calibration.pooled_coverage):
        for case, share in covered.items():
            add("coverage", "reward", case, share)
    for case, by_measure in aurocs.items():
        for measure, value in by_measure.items():
            add("auroc", measure, case, value)
    return rows


def _chunks(batch: SequenceBatch) -> list[SequenceBatch]:
    starts = range(0, len(batch.reward), _CHUNK)
    return [batch.map(itemgetter(slice(start, start + _CHUNK))) for start in starts]


def _known(x: Tensor, valid: Tensor) -> np.ndarray:
    return torch.where(valid, x.double(), math.nan).cpu().numpy()


def _number(statistic: Callable[..., float], least: int, *numbers: np.ndarray) -> float:
    """A statistic of the numbers that are known in all arrays; NaN where they are fewer than ``least``."""
    kept = ~np.any([np.isnan(x) for x in numbers], 0)
    return float(statistic(*(x[kept] for x in numbers))) if kept.sum() >= least else math.nan


def _steps(statistic: Callable[..., float], least: int, *numbers: np.ndarray) -> np.ndarray:
    """The same of each step of arrays (B, H), (H,)."""
    return np.array([_number(statistic, least, *x) for x in zip(*(x.T for x in numbers), strict=True)])


def _reliability(std: np.ndarray, error: np.ndarray, bins: int) -> Reliability:
    count = int((~np.isnan(std + error)).sum())
    return reliability(std, error, min(bins, count)) if count else Reliability(*np.zeros((3, 0)))


def _covered(error: np.ndarray, spread: np.ndarray, fit: np.ndarray, level: float) -> float:
    """Coverage of intervals whose scale is fitted on ``error[fit]``; NaN where they would be infinite."""
    scale = _number(lambda e, s: interval_scale(e, s, level), 1, error[fit], spread[fit])
    if not scale < math.inf:
        return math.nan
    return _number(lambda e, s: coverage(e, *interval(0 * e, s, scale)), 1, error[~fit], spread[~fit])


def _covered_steps(error: np.ndarray, spread: np.ndarray, fit: np.ndarray, level: float) -> np.ndarray:
    return np.array([_covered(e, s, fit, level) for e, s in zip(error.T, spread.T, strict=True)])
