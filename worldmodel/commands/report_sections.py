"""What stands in a run's report, section by section."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodel.errors import UserError
from worldmodel.insight import plots
from worldmodel.insight.exploitation import Promises
from worldmodel.insight.page import Details, Film, Part, Picture, Section, Table
from worldmodel.insight.render import render_film, render_strip
from worldmodel.insight.report import Calibration
from worldmodel.insight.trust import BETTER, LEVELS, QUANTITIES, Trust
from worldmodel.insight.verify import Verified, shown_steps
from worldmodel.insight.video import mp4_bytes, read_mp4
from worldmodel.training.agent import Agent
from worldmodel.training.data import Experience
from worldmodel.training.run_folder import FILM, RunFolder
from worldmodel.types import LatentState, Trajectory


def about(agent: Agent, data: Experience, folder: RunFolder, checkpoint: Path, more: Mapping[str, str]) -> Section:
    """Which model this is, and all its settings."""
    transition = agent.world_model.rssm.transition
    facts: dict[str, str | float] = {
        "task": data.needed_task(),
        "transition": f"{type(transition).__name__}, K = {transition.members}",
        "latents": type(agent.world_model.latents).__name__,
        "weights": checkpoint.name,
        **more,
    }
    config = Details("config.yaml: every setting of the run", folder.config.read_text())
    return Section("Run", [Table(("", ""), [*facts.items()]), config])


def cost(agent: Agent, checkpoint: Path, metrics: Sequence[Mapping[str, float]]) -> Section:
    """What there is to carry, and how fast it was trained."""
    speed = [row["updates_per_second"] for row in metrics if "updates_per_second" in row]
    modules = {"world model": agent.world_model} | (
        {} if agent.actor_critic is None else {"actor and critic": agent.actor_critic}
    )
    sizes = [f"{name} {sum(p.numel() for p in module.parameters()):,}" for name, module in modules.items()]
    facts: dict[str, str | float] = {
        "updates a second": f"{np.median(speed):.1f}, the median of the run" if speed else "not known",
        "parameters": ", ".join(sizes),
        "checkpoint": f"{checkpoint.stat().st_size / 1e6:.1f} MB",
    }
    return Section("Cost", [Table(("", ""), [*facts.items()])])


def learning(folder: RunFolder, metrics: Sequence[Mapping[str, float]], updates: int, frames: int) -> Section:
    """Returns and losses of the whole run as they went; and the returns of the weights after ``updates``."""
    held = folder.read_evaluations()
    evaluations = [row for row in held if row.get("starts") != "report"]
    validations = [row for row in held if row.get("starts") == "report"] + folder.read_validations()
    parts: list[Part] = []
    if evaluations:
        curve = plots.learning_curve(evaluations, metrics, frames)
        text = "Evaluations of the whole run: mean, and one standard deviation. The report is of the checkpoint marked."
        parts.append(Picture(plots.to_png(curve), text))
    else:
        parts.append("The run has not been evaluated yet.")
    measured = [("as it trained", row) for row in evaluations if row["updates"] == updates]
    measured += [("worldmodel validate", row) for row in validations if row["updates"] == updates]
    rows = [(row.get("policy", "actor"), by, *_measured(row)) for by, row in measured]
    if rows:
        parts.append("Returns of this checkpoint. By those of training the best checkpoint is chosen, by others none.")
        parts.append(Table(("who acts", "measured", "seed", "episodes", "return"), rows))
    if len({row[0] for row in rows}) < 2:
        parts.append(f"Others can be measured on it: worldmodel validate --run {folder.path} --policy cem")
    if any(name in row for row in metrics for name in plots.LOSSES):
        parts.append(Picture(plots.to_png(plots.loss_curves(metrics)), "Losses on batches of the replay."))
    else:
        parts.append("Nothing is known of its losses: there is no metrics.csv.")
    return Section("Learning", parts)


def _measured(row: Mapping[str, Any]) -> tuple[str, int, str]:
    returns = f"{row['return_mean']:.1f} \u00b1 {row['return_std']:.1f}"
    return str(row.get("seed", "the run's")), len(row["returns"]), returns


def episode(folder: RunFolder, updates: int) -> Section:
    """A film of these weights."""
    path = folder.film(updates)
    lacking = f"There is no film of these weights: worldmodel validate --run {folder.path} makes one."
    if path is None:
        return Section("An episode", [lacking])
    try:
        frames = read_mp4(path)
    except UserError as cause:
        return Section("An episode", [f"{cause}. {lacking}"])
    name = FILM.fullmatch(path.name)
    who = f", driven by {name['policy']}" if name and name["policy"] else ""
    text = f"The first episode of an evaluation of these weights, after {updates:,} updates{who}."
    return Section("An episode", [Film(path.read_bytes(), _png(frames[len(frames) // 2]), text)])


def dreams(moving: Trajectory[LatentState], still: Trajectory[LatentState], found: Calibration) -> Section:
    """What it dreams of held-out sequences, and how dreams go wrong."""
    frames = render_film(moving)
    text = "Held-out sequences. Borders are orange once the model is shown no more images."
    film = Film(mp4_bytes(frames, fps=8), _png(frames[(moving.context + len(frames)) // 2]), text)
    file = io.BytesIO()
    render_strip(still, difference=True).save(file, format="png")
    picture = Picture(file.getvalue(), "Others. Right of the orange line the model is shown no more images.")
    return Section("Dreams", [film, picture, *_errors(found)])


def _png(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="png")
    return file.getvalue()


def _table(head: Sequence[str], lines: Mapping[str, Sequence[float]]) -> Table:
    rows: list[list[str | float]] = [[name, *values] for name, values in lines.items()]
    return Table(head, rows)


def _at(values: np.ndarray) -> list[float]:
    """The values of some steps."""
    return [float(values[step - 1]) for step in _some(len(values))]


def _some(horizon: int) -> list[int]:
    return sorted({1, *(math.ceil(horizon * share) for share in (0.25, 0.5, 0.75, 1))})


def _errors(found: Calibration) -> list[Part]:
    figure = plots.error_by_horizon(found.errors, found.bias)
    head = ("error", *(f"step {step}" for step in _some(len(found.bias))))
    lines = found.errors | {"imagined minus real return": found.bias}
    return [
        Picture(plots.to_png(figure), "How dreams go wrong. Of all held-out sequences."),
        _table(head, {name: _at(x) for name, x in lines.items()}),
    ]


def uncertainty(found: Calibration) -> list[Section]:
    """Does uncertainty go with error, and is it of the right size?"""
    correlation = Picture(
        plots.to_png(plots.correlation_by_horizon(found.correlation)),
        "Spearman's rank correlation of uncertainty and error. Gaps: all sequences have the same uncertainty.",
    )
    names = next(iter(found.correlation.values()))
    pooled = {name: [each[name] for each in found.pooled_correlation.values()] for name in names}
    labels = {"raw": "as it is", "temperature": f"times {found.temperature:.3g}"}
    curves = {labels[name]: curve for name, curve in found.reliability.items()}
    return [
        Section(
            "Does uncertainty go with error?",
            [correlation, "Over all steps at once:", _table(("measure", *found.pooled_correlation), pooled)],
        ),
        Section(
            "Is uncertainty of the right size?",
            [
                "The deviation of a reward is the spread of the members' rewards and a small floor. A temperature, a "
                "factor on it, is fitted on half of the episodes; all that follows is of the other half.",
                Picture(plots.to_png(plots.reliability_curve(curves)), "Reliability of the reward's deviation."),
                _table(
                    ("deviation of the reward", "calibration error, from 0 to 0.5"),
                    {labels[name]: [error] for name, error in found.ece.items()},
                ),
                Picture(
                    plots.to_png(plots.coverage_by_horizon(found.coverage, found.level)),
                    "Coverage of intervals, each step scaled on its own (split conformal). Gaps: too few sequences.",
                ),
                _table(
                    ("coverage with one scale for all steps", "asked for", "covered"),
                    {name: [found.level, x] for name, x in found.pooled_coverage.items()},
                ),
            ],
        ),
    ]


def trusted(trust: Trust | str, verified: Verified | None) -> Section:
    """How wrong dreams are by now, whether the model says so, and for how long they are worth looking at."""
    title = "How far can its dreams be trusted?"
    if isinstance(trust, str) or verified is None:
        return Section(title, [f"That is not known. {trust}"])
    figure = plots.expected_errors(verified.expected, verified.errors)
    steps = shown_steps(trust.horizon)
    head = ("", *(f"step {step}" for step in steps))
    lines: dict[str, list[float]] = {}
    for name in QUANTITIES[:3]:
        lines[f"{name}: rank correlation of expected and true error"] = [
            *verified.correlation(name)[np.array(steps) - 1]
        ]
        lines[f"{name}: worst tenth with an expected error below the median"] = [
            *verified.trapped(name)[np.array(steps) - 1]
        ]
        for level in LEVELS:
            lines[f"{name}: covered by bands of {level:.0%}"] = [*verified.coverage(name, level)[np.array(steps) - 1]]
    horizons: dict[str, str | float] = {
        "trust horizon, the median": f"{np.median(verified.trusted):g} steps",
        "in truth, the median": f"{np.median(verified.true):g} steps until worse than if the last picture stayed",
        "dreams no worse up to their trust horizon": f"{verified.better:.0%}, asked for {BETTER:.0%}",
    }
    return Section(
        title,
        [
            "The error of a dream by now, expected from how far the members' own dreams have come apart, how unsure "
            "its steps were and how far the picture has moved. "
            f"Functions are fitted on {trust.origin.episodes} held-out episodes, bands and trust horizon on what "
            "functions of other episodes foretold (cross-conformal); here each fifth is judged by the others.",
            Picture(plots.to_png(figure), "Medians over dreams, and the bands of 50 and 90%."),
            Table(("", ""), [*horizons.items()]),
            _table(head, lines),
        ],
    )


def promised(who: str, found: Promises | str) -> Section:
    """Does the model promise its policy more than comes?"""
    title = f"Does it promise the {who} more than comes?"
    if isinstance(found, str):
        return Section(title, [f"That is not known: {found}."])
    low, high = found.interval()
    facts: dict[str, str | float] = {
        "imagined return": float(found.imagined.mean()),
        "real return": float(found.real.mean()),
        "exploitation gap": f"{found.gap:.3g}, 95% interval {low:.3g} to {high:.3g}",
    }
    text = (
        f"Returns of {found.horizon} steps, dreamt and real, from the same {len(found.real)} states of held-out "
        f"episodes in which the {who} explored. "
    )
    if low > 0:
        text += (
            "It is promised more than it gets, as whoever has learned to exploit errors of the model is: "
            "policy/cautious, or data of where it goes, are remedies."
        )
    elif high >= low:
        text += "No more is promised than comes, as far as these episodes tell."
    return Section(title, [text, Table(("", ""), [*facts.items()])])


def noticed(aurocs: Mapping[str, Mapping[str, float]]) -> Section:
    """Does uncertainty tell strange images from usual ones?"""
    figure = plots.auroc_bars(aurocs)
    rows = {shift: list(values.values()) for shift, values in aurocs.items()}
    return Section(
        "Does it notice images that it has never seen?",
        [
            Picture(
                plots.to_png(figure), "How surely the uncertainty of one step tells shifted images from real ones."
            ),
            _table(("shift", *next(iter(aurocs.values()))), rows),
            "Surprise has seen the image that it judges. The others are uncertainty about what comes next.",
        ],
    )
