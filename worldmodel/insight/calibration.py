"""Does uncertainty go with error, and is it of the right size? Statistics of numbers, and the errors of rollouts.

Legend: n numbers of any shape, C classes, B sequences, T time, H horizon.

The statistics take numpy arrays or torch tensors, which must agree in shape and are read flat. NaN means missing: what
it stands in, with its partners, is left out. All raise ValueError where too little is left, or shapes differ.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from worldmodel.control.imagine import following, imagine
from worldmodel.insight.rollouts import imagine_members, picture
from worldmodel.insight.uncertainty import (
    entropy,
    information,
    latent_spread,
    pairwise,
    pixel_spread,
    reward_spread,
)
from worldmodel.model.world_model import WorldModel
from worldmodel.types import LatentState, SequenceBatch, Trajectory

Numbers = np.ndarray | Tensor
N = TypeVar("N", np.ndarray, Tensor)


class Reliability(NamedTuple):
    """Bins of equal count, from the least uncertainty to the greatest."""

    predicted: np.ndarray  # (bins,) mean uncertainty
    observed: np.ndarray  # (bins,) root mean square error
    counts: np.ndarray  # (bins,) int


class HorizonErrors(NamedTuple):
    """Errors of imagined rollouts, and their uncertainty. Zero where ``valid`` is False; [:, t] is t + 1 steps on."""

    latent_error: Tensor  # (B, H) mean square over the latent's numbers, against the posterior of the real image
    pixel_error: Tensor  # (B, H) mean absolute, in [0, 1], at the decoder's resolution
    reward_error: Tensor  # (B, H) absolute
    return_error: Tensor  # (B, H) absolute, of the rewards so far, undiscounted
    reward: Tensor  # (B, H)
    imagined_reward: Tensor  # (B, H)
    measures: dict[str, Tensor]  # (B, H) each, of the step that led there
    valid: Tensor  # (B, H) bool: the episode that the context ended in goes on


def joined(parts: list[HorizonErrors]) -> HorizonErrors:
    """Several sets of sequences, of equal horizon, as one."""
    fields = {n: torch.cat([getattr(p, n) for p in parts]) for n in HorizonErrors._fields if n != "measures"}
    measures = {n: torch.cat([p.measures[n] for p in parts]) for n in parts[0].measures}
    return HorizonErrors(**fields, measures=measures)


def rank_correlation(a: Numbers, b: Numbers) -> float:
    """Spearman's: Pearson's correlation of ranks, ties averaged; in [-1, 1], NaN where one is constant. n >= 3."""
    x, y = _together(a, b, least=3)
    constant = np.ptp(x) == 0 or np.ptp(y) == 0  # of which scipy warns
    return math.nan if constant else float(stats.spearmanr(x, y).statistic)


def auroc(positive: Numbers, negative: Numbers) -> float:
    """Probability that a positive scores above a negative, ties count half (Mann and Whitney's U); 0.5 is chance."""
    (above,), (below,) = _together(positive), _together(negative)
    return float(stats.mannwhitneyu(above, below, method="asymptotic").statistic) / (len(above) * len(below))


def coverage(truth: Numbers, low: Numbers, high: Numbers) -> float:
    """Share of the truth that lies in [low, high]."""
    inside, least, most = _together(truth, low, high)
    return float(((least <= inside) & (inside <= most)).mean())


def interval_scale(error: Numbers, spread: Numbers, level: float = 0.9) -> float:
    """What to multiply the spread by, so that ``interval`` covers ``level`` of new data or more (split conformal).

    The ceil((n + 1) level)-th smallest |error| / spread (Lei et al. 2018, section 5.2): valid for data that are
    exchangeable with those given, whatever the spread is worth. Infinite where n is too small for the level.

    Raises:
        ValueError: the level is not in (0, 1), or a spread is not above 0.
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must be in (0, 1), got {level}")
    wrong, width = _positive(error, spread)
    rank = math.ceil(round((len(wrong) + 1) * level, 9))  # rounded, for 100 * 0.55 is above 55
    return float(np.sort(np.abs(wrong) / width)[rank - 1]) if rank <= len(wrong) else math.inf


def interval(mean: N, spread: N, scale: float) -> tuple[N, N]:
    """Lower and upper ends, mean -+ scale * spread."""
    return mean - scale * spread, mean + scale * spread


def reliability(uncertainty: Numbers, error: Numbers, bins: int = 10) -> Reliability:
    """Error seen beside uncertainty predicted, in ``bins`` of equal count (one apart at most)."""
    if bins < 1:
        raise ValueError(f"reliability needs at least 1 bin, got {bins}")
    uncertainty, wrong = _together(uncertainty, error, least=bins)
    parts = np.array_split(np.argsort(uncertainty, kind="stable"), bins)
    predicted = np.array([uncertainty[p].mean() for p in parts])
    observed = np.array([math.sqrt(np.square(wrong[p]).mean()) for p in parts])
    return Reliability(predicted, observed, np.array([len(p) for p in parts]))


def expected_calibration_error(std: Numbers, error: Numbers) -> float:
    """How far central intervals of a Gaussian are from covering what they should, in [0, 1].

    Mean over p = 0.05, 0.10 .. 0.95 of |share of errors in the central interval of p - p| (after Kuleshov et al. 2018).
    """
    wrong, deviation = _positive(error, std)
    level = np.arange(1, 20) / 20
    limit = np.array([NormalDist().inv_cdf((1 + p) / 2) for p in level])
    share = (np.abs(wrong / deviation)[:, None] <= limit).mean(0)
    return float(np.abs(share - level).mean())


def fit_temperature(std: Numbers, error: Numbers) -> float:
    """The factor on a Gaussian's deviation under which half of the errors lie in its central half.

    The median of |error / std| over that of a standard Gaussian, 0.674. Not the most likely factor, the root mean
    square: errors have heavier tails than a Gaussian, and those would make all the rest too wide.
    """
    return interval_scale(error, std, level=0.5) / NormalDist().inv_cdf(0.75)


def fit_softmax_temperature(logits: Numbers, target: Numbers) -> float:
    """The T in [0.01, 100] under which softmax(logits / T) makes the targets most likely (Guo et al. 2017).

    Args:
        logits: (*n, C)
        target: (*n,) integer classes.
    """
    score, chosen = _classes(logits, target)
    ahead = np.take_along_axis(score, chosen[:, None], 1) - score  # (n, C) of the right class
    low, high = -math.log(100), math.log(100)
    for _ in range(50):  # the likelihood is concave in 1 / T: halve where its slope changes sign
        middle = (low + high) / 2
        weight = np.exp(math.exp(middle) * (score - score.max(1, keepdims=True)))
        slope = ((weight * ahead).sum(1) / weight.sum(1)).mean()
        low, high = (middle, high) if slope > 0 else (low, middle)
    return math.exp(-middle)


def softmax_ece(probs: Numbers, target: Numbers, bins: int = 15) -> float:
    """Mean |accuracy - confidence| of equally wide bins of confidence, by their share (ECE, Guo et al. 2017).

    Args:
        probs: (*n, C)
        target: (*n,) integer classes.
        bins: number of them in [0, 1].
    """
    share, chosen = _classes(probs, target)
    confidence = share.max(1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(place, (share.argmax(1) == chosen) - confidence)).sum() / len(chosen))


@torch.no_grad()
def open_loop_errors(
    world_model: WorldModel, batch: SequenceBatch, context: int = 5, horizon: int = 15
) -> HorizonErrors:
    """Show the model the first records of real sequences, let it dream the next, and compare.

    The dream follows the mixture; it, the members' own dreams, and the filter that the truth is encoded with take the
    most likely latents. The measures: along the mixture's dream ``entropy``, ``epistemic`` (1 is typical),
    ``information``, ``pairwise`` of each step's priors; from the members' dreams ``reward``, ``pixels``, ``latent``,
    their spreads. See insight/uncertainty.py.

    Args:
        world_model: who dreams.
        batch: real sequences (B, T), best of episodes that it was not trained on.
        context: records that are seen, at least 1.
        horizon: H records that are dreamt, at least 1.

    Raises:
        ValueError: the horizon is longer than the data, or nothing is to be seen or dreamt.
    """
    length, end = batch.action.shape[1], context + horizon
    if min(context, horizon) < 1:
        raise ValueError(f"context and horizon must be at least 1, got {context} and {horizon}")
    if end > length:
        raise ValueError(f"horizon longer than the data: {context} seen + {horizon} dreamt, sequences have {length}")
    seen = world_model.observe(batch.map(lambda x: x[:, :end]), mode=True).state  # a filter looks back only
    start = seen.map(lambda x: x[:, context - 1])
    real = batch.map(lambda x: x[:, context:end])
    own = imagine_members(world_model, start, real.action)
    path = imagine(world_model, following(real.action), start, horizon, mode=True, uncertainty=False)
    truth = world_model.decoder.pixels.resize(real.image.flatten(0, 1)).unflatten(0, real.reward.shape)
    wrong = path.reward - real.reward
    valid = real.is_first.cumsum(1) == 0

    def kept(x: Tensor) -> Tensor:
        return torch.where(valid, x, 0.0)

    return HorizonErrors(
        latent_error=kept((path.state.stoch[:, 1:] - seen.stoch[:, context:]).square().mean(-1)),
        pixel_error=kept((picture(world_model, path.state.feature[:, 1:]) - truth).abs().mean((-3, -2, -1))),
        reward_error=kept(wrong.abs()),
        return_error=kept(wrong.cumsum(1).abs()),
        reward=kept(real.reward),
        imagined_reward=kept(path.reward),
        measures={name: kept(x) for name, x in _measures(world_model, path, own).items()},
        valid=valid,
    )


def _measures(
    world_model: WorldModel, path: Trajectory[LatentState], own: Trajectory[LatentState]
) -> dict[str, Tensor]:
    """(B, H) each, from the mixture's dream and the members' own."""
    latents, states = world_model.latents, path.state
    prior = world_model.rssm.transition(states.deter[:, 1:], states.feature[:, :-1], path.action)  # (K, B, H, P)
    return {
        "entropy": entropy(latents, prior),
        "epistemic": world_model.uncertainty(prior),
        "information": information(latents, prior),
        "pairwise": pairwise(latents, prior),
        "reward": reward_spread(own),
        "pixels": pixel_spread(world_model, own),
        "latent": latent_spread(own),
    }


def _array(x: Numbers) -> np.ndarray:
    return x.detach().cpu().double().numpy() if isinstance(x, Tensor) else np.asarray(x, np.float64)


def _together(*numbers: Numbers, least: int = 1) -> list[np.ndarray]:
    """Flat float64 arrays without the places where one of them is NaN."""
    arrays = [_array(x) for x in numbers]
    shapes = [x.shape for x in arrays]
    if len(set(shapes)) > 1:
        raise ValueError(f"numbers that belong together must have the same shape, got {shapes}")
    kept = ~np.any([np.isnan(x) for x in arrays], 0)
    if kept.sum() < least:
        raise ValueError(f"at least {least} numbers are needed, got {kept.sum()} that are not NaN")
    return [x[kept] for x in arrays]


def _positive(number: Numbers, spread: Numbers) -> list[np.ndarray]:
    arrays = _together(number, spread)
    if (arrays[1] <= 0).any():
        raise ValueError("a spread must be above 0 everywhere: add a small floor, or take more than one member")
    return arrays


def _classes(scores: Numbers, target: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """(n, C) float64 and (n,) int."""
    table, chosen = _array(scores), _array(target)
    if table.shape[:-1] != chosen.shape or not chosen.size:
        raise ValueError(f"scores (*n, C) and classes (*n,) do not match: {table.shape} and {chosen.shape}")
    if chosen.min() < 0 or chosen.max() >= table.shape[-1]:
        raise ValueError(f"classes must be in [0, {table.shape[-1]}), got {chosen.min():g} to {chosen.max():g}")
    return table.reshape(-1, table.shape[-1]), chosen.reshape(-1).astype(int)
