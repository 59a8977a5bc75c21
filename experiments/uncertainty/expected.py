"""How wrong dreams are expected to be, and whether they are: the calibration of a model, on many held-out episodes.

``python -m experiments.uncertainty.expected RUN --transition independent`` asks it of a run and leaves rows.

Legend: n dreams, H horizon.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from experiments.uncertainty.asked import keep, parser
from experiments.uncertainty.measure import Row, row
from worldmodel.control.imagine import following, imagine
from worldmodel.insight.calibration import auroc, rank_correlation
from worldmodel.insight.clues import Judged, judged
from worldmodel.insight.error_model import LEVELS, Clues
from worldmodel.insight.rollouts import picture
from worldmodel.insight.trust import QUANTITIES, Origin, fit_trust, last_better
from worldmodel.insight.verify import Verified
from worldmodel.model.world_model import WorldModel
from worldmodel.training.calibrating import CONTEXT, HORIZON, acting, collect_held_out, cut, stacked
from worldmodel.training.loading import load_run
from worldmodel.training.randomness import own_randomness
from worldmodel.types import SequenceBatch

SHOWN = (*range(1, 16), 20, 25, 30, 40)  # steps
RESAMPLES = 300  # of the bootstrap


class Dreams(NamedTuple):
    """Judged dreams of real sequences."""

    found: Judged
    episode: np.ndarray  # (n,)

    def part(self, chosen: np.ndarray) -> Dreams:
        clues = Clues(*(x[chosen] for x in self.found.clues))
        return Dreams(Judged(clues, {n: x[chosen] for n, x in self.found.errors.items()}), self.episode[chosen])


def dreamt(model: WorldModel, batch: SequenceBatch) -> Dreams:
    return Dreams(judged(model, batch, CONTEXT), batch.episode[:, 0].numpy())


def tested(dreams: Dreams, folds: int, fold: int) -> Verified:
    """The other folds' dreams, by what was fitted on one."""
    names, place = np.unique(dreams.episode, return_inverse=True)
    chosen = place % folds == fold
    fit, test = dreams.part(chosen), dreams.part(~chosen)
    trust = fit_trust(*fit.found, fit.episode, Origin("study", "", 0, len(names) // folds, CONTEXT))
    clues, errors = test.found
    return Verified(
        errors=errors,
        expected={name: trust.expected(clues, name) for name in QUANTITIES},
        trusted=trust.trusted_steps(clues),
        true=last_better(errors["pixels"], errors["still"]),
    )


def expected(dreams: Dreams, count: int = 2) -> list[Row]:
    """Every figure, and intervals of rank correlations by bootstrap over sequences.

    Each of ``count`` folds of the episodes is in turn what a calibration is fitted on, and tested on the others; the
    figures are means over folds.
    """
    folds = [tested(dreams, count, fold) for fold in range(count)]
    steps = [step for step in SHOWN if step <= folds[0].errors["pixels"].shape[1]]
    rows = []
    for name in QUANTITIES:
        curves = {"rank_correlation": [x.correlation(name) for x in folds], "trapped": [x.trapped(name) for x in folds]}
        curves |= {f"coverage_{level:g}": [x.coverage(name, level) for x in folds] for level in LEVELS}
        curves["auroc_worst"] = [worst_tenth(x, name) for x in folds]
        for metric, values in curves.items():
            rows += [row("expected", name, metric, step, np.mean(values, 0)[step - 1]) for step in steps]
        for step in steps:
            low, high = bootstrapped(folds[0], name, step)
            rows.append(row("expected", name, "rank_correlation_low", step, low))
            rows.append(row("expected", name, "rank_correlation_high", step, high))
    rows += [
        row("expected", "by_motion", "rank_correlation", s, np.mean([by_motion(x, s) for x in folds])) for s in steps
    ]
    horizons = {
        "trusted": [np.median(x.trusted) for x in folds],
        "true": [np.median(x.true) for x in folds],
        "better": [x.better for x in folds],
    }
    return rows + [row("expected", case, "trust_horizon", None, np.mean(x)) for case, x in horizons.items()]


def worst_tenth(found: Verified, name: str) -> np.ndarray:
    """AUROC (H,) that the expected error tells the worst tenth of dreams from the others."""
    values = []
    for likely, error in zip(found.expected[name].median.T, found.errors[name].T, strict=True):
        worst = error >= np.nanquantile(error, 0.9)
        values.append(auroc(likely[worst], likely[~worst & ~np.isnan(error)]))
    return np.array(values)


def by_motion(found: Verified, step: int) -> float:
    """Rank correlation when errors are divided by the scene's motion, what the last picture is wrong by."""
    ratios = [
        pixels[:, step - 1] / (still[:, step - 1] + 1e-6)
        for pixels, still in (
            (found.expected["pixels"].median, found.expected["still"].median),
            (found.errors["pixels"], found.errors["still"]),
        )
    ]
    return rank_correlation(*ratios)


def bootstrapped(found: Verified, name: str, step: int) -> tuple[float, float]:
    """The ends of 95% of the rank correlation."""
    pair = found.expected[name].median[:, step - 1], found.errors[name][:, step - 1]
    known = ~np.isnan(pair[1])
    sample = stats.bootstrap(
        tuple(x[known] for x in pair),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True, vectorized=False, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    return sample.confidence_interval.low, sample.confidence_interval.high


@torch.no_grad()
def action_shuffle(model: WorldModel, batch: SequenceBatch) -> list[Row]:
    """Error of dreams under the right actions over that under another sequence's: 1 where actions are ignored."""
    start = model.observe(batch.map(lambda x: x[:, :CONTEXT]), mode=True).state.map(lambda x: x[:, -1])
    real = batch.map(lambda x: x[:, CONTEXT:])
    horizon = real.reward.shape[1]
    other = torch.randperm(len(real.action), generator=torch.Generator().manual_seed(0))
    wrong: dict[str, list[torch.Tensor]] = {"pixels": [], "reward": []}
    for action in (real.action, real.action[other]):
        path = imagine(model, following(action), start, horizon, mode=True, uncertainty=False)
        truth = model.decoder.pixels.resize
        pixels = [
            (picture(model, x) - truth(real.image[:, t])).abs().mean((-3, -2, -1))
            for t, x in enumerate(path.state.feature.unbind(1)[1:])
        ]
        wrong["pixels"].append(torch.stack(pixels, 1).mean(0))
        wrong["reward"].append((path.reward - real.reward).abs().mean(0))
    return [
        row("action_shuffle", name, "ratio", step, right[step - 1] / shuffled[step - 1])
        for name, (right, shuffled) in wrong.items()
        for step in SHOWN
        if step <= horizon
    ]


def of_run(folder: Path, episodes: int) -> tuple[str, list[Row]]:
    """The task of a run, and what its calibration is worth on held-out episodes."""
    agent, data = load_run(folder, environments=1)
    with own_randomness(1), tempfile.TemporaryDirectory() as directory:
        try:
            replay = collect_held_out(data, acting(agent), Path(directory), episodes)
        finally:
            data.close()
        parts = cut(list(replay.episodes()), CONTEXT + HORIZON, HORIZON // 4)
        batch = stacked(parts)
        return data.task, expected(dreamt(agent.world_model, batch), 3) + action_shuffle(agent.world_model, batch)


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--episodes", type=int, default=48, help="held-out ones; a third of them calibrate")
    given = words.parse_args()
    keep(given, "expected", *of_run(given.run, given.episodes))


if __name__ == "__main__":
    main()
