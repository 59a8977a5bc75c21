"""What the default was to reach, and what it comes to: a table out of the rows, so that it never lags behind them."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median as middle
from typing import Any

from experiments.uncertainty.by_task import TRAINED, found_shifts, mean_value, tasks
from experiments.uncertainty.rows import Rows, pick, table
from experiments.uncertainty.summary import LEVELS, default_kind, exploited, games, median
from worldmodel.insight.trust import QUANTITIES

STEPS = range(1, 16)
ABOUT_TRAINED = (
    "What is expected of dreams hangs on how good the model is that dreams. The study's models have seen 2,000 or\n"
    "4,000 updates of random actions. In runs that `worldmodel fit` trained until they could do their task, one seed\n"
    "each:"
)
ABOUT = (
    "What the shipped default was to reach, and what it comes to: medians over tasks and seeds, and where tasks are\n"
    "told apart the mean of each one's seeds. Why what is missed is missed is told below."
)
NAMES = {"cautious": "the uncertainty", "unusual": "unusual error"}  # of manners
Line = tuple[str, str, bool]  # an aim, the figure, and whether it is reached


def aims(rows: Rows) -> str:
    """A line for each aim; a figure that there is not counts as missed."""
    own, alone = pick(rows, transition=default_kind()), pick(rows, transition="single_softmax")
    names = tasks(rows, default_kind())
    return _told([*_cost(own), *_unseen(own, alone, names), *_expected(own, names), *_caution(own)])


def aims_trained(rows: Rows) -> str:
    """The same of the runs that were trained, as far as they are asked."""
    own = pick(rows, transition=TRAINED)
    return _told([*_expected(own, tasks(rows, TRAINED)), *_caution_of_runs(own)])


def _told(lines: Iterable[Line]) -> str:
    return table(["aim", "figure", "reached"], [[*line[:2], "yes" if line[2] else "no"] for line in lines])


def _expected(own: Rows, names: list[str]) -> Iterable[Line]:
    yield from (*_ranks(own), *_bands(own), *_trust(own, names))


def _cost(own: Rows) -> Iterable[Line]:
    sizes = {row["task"]: row["value"] for row in pick(own, metric="cost_ratio")}
    told = ", ".join(f"{size} {ratio:.2f}" for size, ratio in sorted(sizes.items()))
    yield "an update takes at most 1.10 of a single member's", told, bool(sizes) and max(sizes.values()) <= 1.10


def _unseen(own: Rows, alone: Rows, names: list[str]) -> Iterable[Line]:
    def hole(part: Rows, measure: str) -> dict[str, float]:
        named = {"metric": "auroc", "case": "hole_states", "measure": measure}
        found = {task: mean_value(pick(part, task=task, **named)) for task in names}
        return {task: x for task, x in found.items() if x is not None}

    entropy = hole(alone, "entropy")
    for measure in ("epistemic", "novelty"):
        known = hole(own, measure)
        told = ", ".join(f"{task} {x:.2f}" for task, x in known.items())
        yield f"hole of states: AUROC 0.95 on each task, by {measure}", told, min(known.values(), default=0) >= 0.95
        ahead = {task: x - entropy[task] for task, x in known.items() if task in entropy}
        told = ", ".join(f"{task} {x:+.2f}" for task, x in ahead.items())
        above = f"and 0.2 above the entropy of one member with softmax latents, by {measure}"
        yield above, told, middle(ahead.values() or [0.0]) >= 0.2
        counts = {task: found_shifts(pick(own, task=task, metric="auroc"), measure)[0] for task in names}
        told = ", ".join(f"{task} {x}" for task, x in counts.items())
        yield f"five of seven shifts at 0.95, by {measure}", told, middle(counts.values() or [0]) >= 5


def _ranks(own: Rows) -> Iterable[Line]:
    for what in ("pixels", "reward"):
        found = {s: median(own, measure="expected", case=what, metric="rank_correlation", horizon=s) for s in STEPS}
        known = {step: x for step, x in found.items() if x is not None}
        least = min(known, key=lambda step: known[step], default=0)
        high = sum(x >= 0.7 for x in known.values())
        told = f"{high} of {len(known)} steps; least {known.get(least, 0):.2f}, at {least}"
        aim = f"expected and true error of {what}: rank correlation 0.7 at each step from 1 to 15"
        yield aim, told, min(known.values(), default=0) >= 0.7
        share = median(own, measure="expected", case=what, metric="trapped", horizon=40)
        trapped = f"of the worst tenth at step 40 at most 10% expected to be below the median, {what}"
        yield trapped, "-" if share is None else f"{share:.0%}", share is not None and share <= 0.1


def _bands(own: Rows) -> Iterable[Line]:
    for what in QUANTITIES[:3]:
        off: dict[tuple[float, int], float] = {}
        for level in LEVELS:
            for step in (1, 5, 15, 40):
                share = median(own, measure="expected", case=what, metric=f"coverage_{level:g}", horizon=step)
                if share is not None:
                    off[level, step] = share - level
        worst = max(off, key=lambda at: abs(off[at]), default=(0.0, 0))
        near = sum(abs(x) <= 0.03 + 1e-9 for x in off.values())
        far = f"{100 * off.get(worst, 0):+.0f} points, of {worst[0]:.0%} at step {worst[1]}"
        told = f"{near} of {len(off)}; furthest {far}"
        aim = f"bands of 50, 80, 90 and 95% of {what} cover within 3 points at steps 1, 5, 15 and 40"
        yield aim, told, bool(off) and near == len(off)


def _trust(own: Rows, names: list[str]) -> Iterable[Line]:
    def ends(which: str) -> dict[str, Any]:
        found = {task: mean_value(pick(own, task=task, metric="trust_horizon", case=which)) for task in names}
        return {task: x for task, x in found.items() if x is not None}

    better, trusted, true = ends("better"), ends("trusted"), ends("true")
    holds = middle(better.values() or [0.0])
    told = ", ".join(f"{task} {x:.0%}" for task, x in better.items())
    yield "up to the trust horizon 90% of dreams are better than the last picture", told, holds >= 0.9
    shares = {task: trusted[task] / x for task, x in true.items() if x}
    told = ", ".join(f"{task} {x:.2f}" for task, x in shares.items())
    yield "it is at least two thirds of the true one", told, middle(shares.values() or [0.0]) >= 2 / 3


def _caution(own: Rows) -> Iterable[Line]:
    """Where nobody is exploited nothing is to be won."""
    gap, imagined, earned = (games(own, metric) for metric in ("gap", "imagined", "real_return"))
    lured = {who for who, x in gap.items() if exploited(x["plain"], imagined[who]["plain"])}
    for manner, name in NAMES.items():
        cuts = {who: 1 - x[manner] / x["plain"] for who, x in gap.items() if who in lured and manner in x}
        shares = {who: x[manner] / x["plain"] - 1 for who, x in earned.items() if who in gap and manner in x}
        won = {who: x for who, x in shares.items() if who in lured}
        lost = {who: x for who, x in shares.items() if who not in lured}
        aim = f"caution by {name}, where a policy is exploited: the gap shrinks by 70%"
        yield aim, _players(cuts), middle(cuts.values() or [0.0]) >= 0.7
        yield "and the return does not fall", _players(won), min(won.values(), default=-1) >= 0
        yield "and elsewhere it costs at most 5%", _players(lost), min(lost.values(), default=-1) >= -0.05


def _caution_of_runs(own: Rows) -> Iterable[Line]:
    """Who knows the task is hardly lured anywhere."""
    for manner, name in NAMES.items():
        shares = {row["task"]: row["value"] for row in pick(own, measure=manner, metric="share_of_plain")}
        found = {task: x - 1 for task, x in shares.items() if x is not None}
        told = ", ".join(f"{task} {x:+.1%}" for task, x in sorted(found.items()))
        yield f"caution by {name} costs the planner at most 5%", told, min(found.values(), default=-1) >= -0.05


def _players(found: dict[tuple[str, str, int], float]) -> str:
    each: dict[str, list[str]] = {}
    for (task, who, _), x in sorted(found.items()):
        each.setdefault(f"{task} {who}", []).append(f"{x:+.0%}")
    return ", ".join(f"{name} {' and '.join(values)}" for name, values in each.items())
