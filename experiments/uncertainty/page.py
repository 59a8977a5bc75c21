"""docs/uncertainty.json and .md, from the files of a study."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.uncertainty.aims import ABOUT, ABOUT_TRAINED, aims, aims_trained
from experiments.uncertainty.by_task import TRAINED, expected_by_task, unseen_by_task
from experiments.uncertainty.rows import Rows, mean, pick, table
from experiments.uncertainty.summary import default_kind, exploited, games, summary, with_default
from worldmodel.insight.trust import LEVELS, QUANTITIES

DOCS = Path(__file__).parents[2] / "docs"
DATA, PAGE, NOTES = DOCS / "uncertainty.json", DOCS / "uncertainty.md", DOCS / "uncertainty_notes.md"
TABLES, SUMMARY = DOCS / "uncertainty_tables.md", DOCS / "uncertainty_summary.json"
DRAWN = ("single", "shared", "independent", "independent_priors", "bayesian", "dropout")
KINDS = (
    "single",
    "shared",
    "independent_heads",
    "independent",
    "independent_half",
    *DRAWN[3:],
    "single_softmax",
    "independent_softmax",
)
_NAMES = ("task", "transition", "seed", "measure", "case", "metric", "horizon")


def gather(out: Path) -> Rows:
    """The rows that are kept, and those of every job that is done, which take their place."""
    rows: Rows = json.loads(DATA.read_text()) if DATA.exists() else []
    for path in sorted(out.glob("*/*_[0-9]*.json")):
        rows += json.loads(path.read_text())
    kept = {tuple(row[name] for name in _NAMES): row for row in rows}
    return sorted(kept.values(), key=lambda row: (row["task"], row["transition"], row["seed"]))


_SEES = ("surprise", "reconstruction", "novelty")  # the image itself


def unseen(rows: Rows, task: str) -> str:
    cases = list(dict.fromkeys(row["case"] for row in pick(rows, task=task, metric="auroc")))
    body = []
    for kind in KINDS:
        alone = kind.startswith("single")
        for measure in ("entropy", *_SEES) if alone else ("entropy", "epistemic", "pixels", *_SEES):
            found = [
                mean(pick(rows, task=task, transition=kind, measure=measure, metric="auroc", case=c)) for c in cases
            ]
            body.append([kind, measure, *found])
    return table(["transition", "measure", *(c.replace("_", " ") for c in cases)], body)


def errors(rows: Rows, task: str) -> str:
    body = []
    for kind in KINDS:
        for error in ("pixels", "reward"):
            own = pick(rows, task=task, transition=kind, measure=f"true_{error}_error")
            cells = [
                mean(pick(own, case=c, metric=m)) for c in ("hole_states", "hole_actions") for m in ("ratio", "auroc")
            ]
            if set(cells) != {"-"}:
                body.append([kind, error, *cells])
    head = [f"hole of {what}: {of}" for what in ("states", "actions") for of in ("times the error", "AUROC")]
    return table(["transition", "true error", *head], body)


def correlation(rows: Rows, task: str, error: str) -> str:
    body = []
    for kind in KINDS:
        for measure in ("entropy", "epistemic", "latent", "reward", "pixels"):
            own = pick(rows, task=task, transition=kind, measure=measure, metric=f"rank_correlation_{error}")
            cells = [
                mean(pick(own, case=case, horizon=h))
                for case, h in (
                    ("everything", 1),
                    ("everything", 5),
                    ("everything", 15),
                    ("everything", None),
                    ("seen", None),
                )
            ]
            if set(cells) != {"-"}:
                body.append([kind, measure, *cells])
    return table(["transition", "measure", "1 step", "5 steps", "15 steps", "all steps", "all steps, seen data"], body)


def intervals(rows: Rows, task: str) -> str:
    metrics = [f"{m}_{w}{e}" for w in ("reward", "return") for m, e in
               (("coverage", ""), ("calibration_error", ""), ("calibration_error", "_tempered"))]  # fmt: skip
    body = []
    for kind in KINDS:
        for case in ("seen", "everything"):
            own = pick(rows, task=task, transition=kind, case=case, horizon=None)
            body.append([kind, case, *(mean(pick(own, metric=metric)) for metric in metrics)])
    head = [f"{what} {of}" for of in ("reward", "return") for what in ("coverage", "ECE", "ECE, temperature")]
    return table(["transition", "data", *(h.replace("coverage", "coverage of 90%,") for h in head)], body)


def drift(rows: Rows, task: str) -> str:
    body = []
    for kind in KINDS:
        own = pick(rows, task=task, transition=kind, case="drift")
        error = mean(pick(own, measure="error", metric="ratio"))
        for measure in ("epistemic", "latent", "pixels"):
            cells = [mean(pick(own, measure=measure, metric=m)) for m in ("ratio", "missed")]
            if set(cells) != {"-"}:
                body.append([kind, error, measure, *cells])
    return table(["transition", "error, last over first step", "measure", "the same ratio", "bad dreams missed"], body)


def _smaller(gaps: dict[str, float], imagined: dict[str, float], manner: str) -> str:
    """By how much a manner makes the plain gap smaller."""
    if manner not in gaps:
        return "-"
    return f"{1 - gaps[manner] / gaps['plain']:.0%}" if exploited(gaps["plain"], imagined["plain"]) else "no gap"


def promises(rows: Rows) -> str:
    body = []
    for task in dict.fromkeys(row["task"] for row in pick(rows, metric="gap")):
        for kind in KINDS:
            for who in ("planner", "actor"):
                for seed in sorted(
                    {row["seed"] for row in pick(rows, task=task, transition=kind, case=who, metric="gap")}
                ):
                    own = pick(rows, task=task, transition=kind, case=who, seed=seed)
                    gaps, imagined = (games(own, x)[task, who, seed] for x in ("gap", "imagined"))
                    manners = ("plain", "cautious", "by_error", "unusual")
                    cells = [
                        mean(pick(own, measure=m, metric=x))
                        for m in manners
                        for x in ("imagined", "real", "real_return")
                    ]
                    smaller = [_smaller(gaps, imagined, m) for m in ("cautious", "unusual")]
                    body.append([task, kind, who, str(seed), *cells, *smaller])
    names = ["imagined", "real", "episode"]
    told = ("plain", "cautious", "in units of error", "unusual error alone")
    head = [*(f"{manner}: {n}" for manner in told for n in names)]
    head += ["cautious: gap smaller by", "unusual error alone: gap smaller by"]
    return table(["task", "transition", "policy", "seed", *head], body)


def filling(rows: Rows) -> str:
    own = pick(rows, metric="hole_filled")
    last = max(row["horizon"] for row in own)
    rounds = [r for r in (1, 2, 4, 6, 8, 12) if r <= last]
    body = []
    for task, who in dict.fromkeys((row["task"], row["case"]) for row in own):
        for seed in sorted({row["seed"] for row in pick(own, task=task, case=who)}):
            found = [pick(own, task=task, case=who, seed=seed, horizon=r)[0]["value"] for r in rounds]
            body.append([task, who.replace("_", " "), str(seed), *(f"{100 * x:.0f}%" for x in found)])
    return table(["task", "collector", "seed", *(f"round {r}" for r in rounds)], body)


def curves(rows: Rows) -> None:
    """docs/uncertainty.png: correlation by horizon, for each task."""
    from matplotlib.figure import Figure

    colours = dict(zip(DRAWN, ("#999999", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#D55E00"), strict=True))
    tasks = list(dict.fromkeys(row["task"] for row in pick(rows, metric="auroc")))
    figure = Figure(figsize=(9, 3.6 * len(tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), 2, squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        for ax, error in zip(line, ("pixels", "reward"), strict=True):
            for kind in DRAWN:
                measure = "entropy" if kind == "single" else error
                points: dict[int, list[float]] = defaultdict(list)
                wanted = {"task": task, "transition": kind, "measure": measure, "case": "everything"}
                for row in pick(rows, **wanted, metric=f"rank_correlation_{error}"):
                    if row["horizon"]:
                        points[row["horizon"]].append(row["value"])
                steps = sorted(points)
                ax.plot(
                    steps, [np.mean(points[s]) for s in steps], "o-", color=colours[kind], label=f"{kind}: {measure}"
                )
            ax.axhline(0, color="#cccccc", lw=1)
            ax.set(
                xlabel="steps dreamt",
                ylabel="rank correlation",
                title=f"{task}: uncertainty with true {error} error",
                ylim=(-0.4, 1),
            )
    axes[-1, 1].legend(fontsize=7, loc="lower right")
    figure.savefig(DOCS / "uncertainty.png", dpi=110)


_LONG = (
    *((case, "rank_correlation") for case in ("pixels", "by_motion", "reward", "return")),
    *((case, x) for x in ("auroc_worst", "trapped", *(f"coverage_{x:g}" for x in LEVELS)) for case in QUANTITIES[:3]),
)


def wrong_by_now(rows: Rows, task: str) -> str:
    """What calibrations are worth: each figure by step."""
    steps = (1, 5, 10, 15, 40)
    body = []
    for kind in KINDS:
        own = pick(rows, task=task, transition=kind, measure="expected")
        for case, metric in _LONG:
            cells = [mean(pick(own, case=case, metric=metric, horizon=step)) for step in steps]
            if set(cells) != {"-"}:
                body.append([kind, case.replace("_", " "), metric.replace("_", " "), *cells])
    return table(["transition", "error", "figure", *(f"step {step}" for step in steps)], body)


def medians(found: dict[str, Any]) -> str:
    """The summary as a table, a line for each transition."""
    head = [
        "transition",
        "hole of states",
        "shifts",
        "pixels, 1 / 5 / 15",
        "reward, 1 / 5 / 15",
        "gap smaller by",
        "cost",
    ]
    body = []
    for kind in (*KINDS, "default"):
        if kind not in found["auroc_hole"]:
            continue
        shifts = [x for x in found["auroc_shifts"][kind].values() if x is not None]
        ranks = []
        for name in ("rank_pixels", "rank_reward"):
            values = [found[name][kind]["spread"][step] for step in ("1", "5", "15")]
            ranks.append("-" if None in values else " / ".join(f"{x:.2f}" for x in values))
        cut, cost, hole = found["exploitation_cut"][kind], found["cost_ratio"][kind], found["auroc_hole"][kind]
        body.append(
            [
                f"default ({found['shipped_default']})" if kind == "default" else kind,
                "-" if hole is None else f"{hole:.2f}",
                f"{np.median(shifts):.2f}" if shifts else "-",
                *ranks,
                "-" if cut is None else f"{cut:.0%}",
                "-" if cost is None else f"{cost:.2f}",
            ]
        )
    return table(head, body)


def write(out: Path) -> None:
    """Rows, both pages, summary and picture: from the jobs under ``out``, and from the rows that are kept."""
    rows = gather(out)
    # a number that there is not is null: JSON knows no NaN
    strict = [
        row | {"value": row["value"] if row["value"] is not None and np.isfinite(row["value"]) else None}
        for row in rows
    ]
    strict = with_default(strict)
    DATA.write_text("[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in strict) + "\n]\n")
    found = summary(strict)
    SUMMARY.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    rows = [row for row in strict if row["transition"] != "default"]
    curves(rows)
    parts = ["# What the model knows of its own ignorance", ABOUT, aims(rows), ABOUT_TRAINED, aims_trained(rows)]
    parts += [NOTES.read_text().strip()]
    parts += ["## The default, task by task", unseen_by_task(rows)]
    parts += ["The error that a calibration expects against the true one:", *expected_by_task(rows, default_kind())]
    parts += ["## In runs that were trained", *expected_by_task(rows, TRAINED)]
    parts += ["## In short", "Medians over tasks and seeds; ranks are those of the members' spread.", medians(found)]
    parts += ["![rank correlation of uncertainty and error by horizon](uncertainty.png)"]
    PAGE.write_text("\n\n".join(parts) + "\n")
    TABLES.write_text("\n\n".join(["# What the model knows of its own ignorance: all tables", *tables(rows)]) + "\n")


def tables(rows: Rows) -> list[str]:
    tasks = list(dict.fromkeys(row["task"] for row in pick(rows, metric="auroc")))
    parts: list[str] = []
    for task in tasks:
        parts += [
            f"## {task}: seen from unseen",
            "AUROC of one-step uncertainty, mean of the seeds.",
            unseen(rows, task),
        ]
        told = "True error of one predicted step in the holes, against steps like the data."
        parts += [f"## {task}: how wrong it is there", told, errors(rows, task)]
        for error in ("pixels", "reward"):
            parts += [
                f"## {task}: uncertainty and true error, {error}",
                "Rank correlation, open loop.",
                correlation(rows, task, error),
            ]
        parts += [f"## {task}: intervals", intervals(rows, task), f"## {task}: the trap of drift", drift(rows, task)]
        parts += [
            f"## {task}: how wrong by now",
            "What calibrations are worth on others' episodes.",
            wrong_by_now(rows, task),
        ]
    parts += ["## The hole exploited", promises(rows)]
    return [*parts, "## The hole filled", "Share of its 100 cells seen.", filling(rows)]
