"""The suite's page: a table, scores published elsewhere at the nearest frames, an aggregate, and curves."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")  # told apart by the colour-blind (Okabe and Ito)
SOURCES = {"DreamerV3-repo/dreamerv3": "DreamerV3", "DR.Q (official)": "DR.Q"}
Row = dict[str, Any]


def rows(out: Path) -> list[Row]:
    """All that is done, with the random floor of each task."""
    floors = {path.stem: json.loads(path.read_text())["random_mean"] for path in (out / "random").glob("*.json")}
    paths = (path for path in out.glob("*/*.json") if path.parent.name != "random")
    found = [json.loads(path.read_text()) for path in paths]
    found = [row | {"random_mean": floors.get(row["task"])} for row in found]
    return sorted(found, key=lambda row: (row["preset"], row["task"], row["seed"]))


def published(path: Path | None, task: str) -> list[list[Any]]:
    """Published [name, frames, score] of a task, up to a million frames."""
    if path is None:
        return []
    with path.open() as file:
        lines = [line for line in csv.DictReader(file) if line["source"] in SOURCES and line["task"] == task]
    found = [[SOURCES[line["source"]], int(line["env_steps"]), float(line["score"])] for line in lines]
    return [point for point in found if point[1] <= 1_000_000]


def nearest(points: list[list[Any]], frames: int) -> list[list[Any]]:
    """Of each name the point whose frames are nearest, by ratio."""
    near: dict[str, list[Any]] = {}
    for point in sorted(points, key=lambda x: abs(math.log(x[1] / max(1, frames)))):
        near.setdefault(point[0], point)
    return list(near.values())


def interquartile_mean(scores: Iterable[float]) -> tuple[float, float, float]:
    """Mean of the middle half of the tasks' scores, and its 95% bootstrap interval over tasks (Agarwal et al. 2021)."""
    from scipy import stats

    values = np.array(list(scores))
    middle = float(stats.trim_mean(values, 0.25))
    if len(values) < 3:
        return middle, math.nan, math.nan

    def statistic(x: np.ndarray, axis: int) -> np.ndarray:
        return stats.trim_mean(x, 0.25, axis=axis)

    found = stats.bootstrap((values,), statistic, method="percentile", rng=np.random.default_rng(0), n_resamples=5000)
    return middle, float(found.confidence_interval.low), float(found.confidence_interval.high)


def draw(found: list[Row], over: str, path: Path) -> None:
    """Curves of all runs over ``frames`` or ``minutes``, a panel for each task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tasks = list(dict.fromkeys(row["task"] for row in found))
    columns = min(5, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    size = (3.2 * columns, 2.6 * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(tasks) :]:
        axis.set_visible(False)
    for axis, task in zip(axes.flat, tasks, strict=False):
        for index, row in enumerate(row for row in found if row["task"] == task):
            frames, minutes, returns = zip(*row["curve"], strict=True)
            colour, label = COLOURS[index % len(COLOURS)], f"{row['preset']}, seed {row['seed']}"
            axis.plot([x / 1000 for x in frames] if over == "frames" else minutes, returns, color=colour, label=label)
        if over == "frames":
            most = max(row["frames"] for row in found if row["task"] == task)
            points = next(row["published"] for row in found if row["task"] == task)
            for marker, name in zip("*^", dict.fromkeys(point[0] for point in points), strict=False):
                near = [point for point in points if point[0] == name and point[1] <= 3 * most]
                axis.plot([x[1] / 1000 for x in near], [x[2] for x in near], f"k{marker}", label=name)
        axis.set(title=task, xlabel="thousand frames" if over == "frames" else "minutes of training", ylim=(0, 1020))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=6)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def table(found: list[Row]) -> list[str]:
    """A line for each task and preset."""
    head = ["task", "preset", "random", "return", "each seed", "frames", "updates", "minutes", "cores", "published"]
    lines = ["| " + " | ".join([*head, "commit"]) + " |", "|" + "---|" * (len(head) + 1)]
    for key in dict.fromkeys((row["task"], row["preset"]) for row in found):
        same = [row for row in found if (row["task"], row["preset"]) == key]
        first, mean = same[0], np.mean([row["return_mean"] for row in same])
        floor = "" if first["random_mean"] is None else f"{first['random_mean']:.0f}"
        seeds = ", ".join(f"{row['seed']}: {row['return_mean']:.0f} ± {row['return_std']:.0f}" for row in same)
        near = nearest(first["published"], first["frames"])
        other = ", ".join(f"{name} {score:.0f} at {at // 1000}k" for name, at, score in near)
        minutes = ", ".join(f"{row['minutes']:.0f}" for row in same)
        commits = ", ".join(dict.fromkeys(f"`{row['commit']}`" for row in same))
        cells = [*key, floor, f"**{mean:.0f}**", seeds, f"{first['frames']:,}", f"{first['updates']:,}", minutes]
        lines.append("| " + " | ".join(map(str, [*cells, first["cores"], other, commits])) + " |")
    return lines


def write(out: Path, folder: Path, scores: Path | None) -> None:
    """Write ``suite.md``, ``suite.json`` and two pictures into ``folder``, of all that is done in ``out``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [row | {"published": published(scores, row["task"])} for row in rows(out)]
    (folder / "suite.json").write_text(json.dumps(found, indent=1) + "\n")
    text = [
        "# The suite",
        "",
        "Made by `python -m experiments.suite`. A return is the mean over the episodes of a run's last evaluation,",
        "with the actor's most likely action; frames count the action repeat; minutes are of training, evaluations",
        "apart, on the cores that the row says. Published scores stand at the frames nearest to a row's.",
        "",
        *table(found),
        "",
    ]
    for name in dict.fromkeys(row["preset"] for row in found):
        same = [row for row in found if row["preset"] == name]
        tasks = dict.fromkeys(row["task"] for row in same)
        means = [float(np.mean([row["return_mean"] for row in same if row["task"] == task])) for task in tasks]
        middle, low, high = interquartile_mean(means)
        interval = "" if math.isnan(low) else f" (95% bootstrap interval over tasks {low:.0f} to {high:.0f})"
        text.append(f"Interquartile mean of {name} over {len(means)} tasks: **{middle:.0f}**{interval}.")
    for over in ("minutes", "frames"):
        if found:
            draw(found, over, folder / f"suite_{over}.png")
            text += ["", f"![return over {over}](suite_{over}.png)"]
    text += ["", "Commands, each to be given `--run FOLDER`:", "", *[f"- `{row['command']}`" for row in found]]
    (folder / "suite.md").write_text("\n".join(text) + "\n")
