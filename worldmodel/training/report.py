"""``worldmodel report``: what a run has learned, and whether it knows what it does not know."""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.errors import UserError
from worldmodel.experience.collector import Collector, RandomPolicy
from worldmodel.experience.replay import Replay
from worldmodel.insight import plots
from worldmodel.insight.report import (
    Calibration,
    Picture,
    Section,
    Table,
    calibrate,
    horizon_errors,
    shift_auroc,
    table_rows,
    write_html,
)
from worldmodel.insight.rollouts import open_loop, strip
from worldmodel.training.acting import Acting, ByActor
from worldmodel.training.agent import Agent
from worldmodel.training.data import Experience
from worldmodel.training.loading import load_run
from worldmodel.training.parser import Parser
from worldmodel.training.randomness import own_randomness
from worldmodel.training.run import RunFolder, write_atomically
from worldmodel.types import SequenceBatch

_SHIFTED = 64  # sequences, at most, that are seen through every shift


def main(given: list[str]) -> None:
    """Run ``worldmodel report`` with these arguments, the name of the command left out.

    Raises:
        UserError: something that the person at the keyboard can mend.
    """
    text = "Show what a run has learned and how far its doubts can be trusted: an HTML file, and RUN/calibration.json."
    parser = Parser(prog="worldmodel report", description=text)
    parser.add_function_arguments(report)
    report(**parser.parse_args(given).as_dict())


def report(
    run: str,
    checkpoint: str | None = None,
    episodes: int = 16,
    horizon: int = 15,
    context: int = 5,
    out: str | None = None,
    seed: int = 0,
) -> None:
    """Report on a run, from episodes that it was not trained on.

    Args:
        run: the run's folder.
        checkpoint: whose weights; best.ckpt if none is given, or last.ckpt where there is no best.
        episodes: to collect for it, half by the actor (or else the planner) as it explores, half at random.
        horizon: records that are dreamt.
        context: records that are seen before a dream.
        out: the HTML file; report.html in the run's folder if none is given.
        seed: of the actions. The episodes begin as evaluations do.

    Raises:
        UserError: there is no such run or checkpoint, or the episodes are too few or too short.
    """
    for name, value, least in (("episodes", episodes, 4), ("horizon", horizon, 1), ("context", context, 1)):
        if value < least:
            raise UserError(f"{name} is {value}: it must be {least} or more")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint}")
    agent, data = load_run(run, checkpoint, environments=1)  # with more, short episodes would be favoured
    acting: Acting = ByActor() if agent.actor_critic is not None else agent.collect_with
    try:
        with own_randomness(seed), tempfile.TemporaryDirectory() as directory:
            batch = windows(_collect(agent, data, acting, Path(directory), episodes), context, horizon)
    finally:
        data.close()
    fit = batch.episode[:, 0] % 2 == 0
    if fit.all() or not fit.any():
        raise UserError("too few episodes are long enough: give more --episodes, or a shorter --horizon")
    with own_randomness(seed):
        calibration = calibrate(horizon_errors(agent.world_model, batch, context, horizon), fit)
        aurocs = shift_auroc(agent.world_model, _spread(batch, _SHIFTED))
        dream = _dream(agent, batch, context)
    held_out = {
        "held-out episodes": f"{episodes}, half by {acting.name(agent.actor_critic)} and half at random",
        "held-out sequences": f"{len(fit)}, of which {int(fit.sum())} to fit and the others to test",
        "a sequence": f"{context} records seen, {horizon} dreamt",
    }
    folder = RunFolder(run)
    sections = [
        Section("Run", [Table(("", ""), [*(_facts(agent, data, folder, checkpoint) | held_out).items()])]),
        _learning(folder.read_evaluations()),
        Section("Dreams", [dream, *_errors(calibration)]),
        *_doubts(calibration),
        _shifts(aurocs),
    ]
    transition = type(agent.world_model.rssm.transition).__name__
    rows = table_rows(calibration, aurocs, task=data.task, transition=transition, seed=data.seed)
    numbers, path = folder.path / "calibration.json", Path(out) if out else folder.path / "report.html"
    write_atomically(numbers, lambda temporary: _write(temporary, rows))
    write_html(path, sections, f"Report of {folder.path.name}")
    print(f"wrote {path} and {numbers}")


def windows(replay: Replay, context: int, horizon: int) -> SequenceBatch:
    """All sequences of ``context + horizon`` records that the replay's episodes hold, without overlap, in order.

    Raises:
        UserError: there is none.
    """
    length, longest = context + horizon, 0
    parts, episode = [], []
    for number, path in enumerate(sorted(replay.directory.glob("*.npy"))):
        records = np.load(path, allow_pickle=False)
        longest = max(longest, len(records))
        for first in range(0, len(records) - length + 1, length):
            parts.append(records[first : first + length])
            episode.append(number)
    if not parts:
        raise UserError(
            f"horizon {horizon} is longer than the data: with {context} records seen before it takes {length}, "
            f"and the longest episode has {longest}"
        )
    rows = np.stack(parts)  # (B, T)
    tensors: dict[str, Any] = {name: torch.from_numpy(rows[name].copy()) for name in rows.dtype.names or ()}
    return SequenceBatch(**tensors, episode=torch.tensor(episode).unsqueeze(1).repeat(1, length))


def _collect(agent: Agent, data: Experience, acting: Acting, directory: Path, episodes: int) -> Replay:
    """Held-out episodes: first those of who acts, then those at random."""
    environments = data.evaluation_environments()
    replay = Replay(directory, image_shape=environments.image_shape, action_size=environments.action.size)
    collector = Collector(environments, replay)
    explores = acting.policy(agent.world_model, agent.actor_critic, agent.action, explore=True)
    for policy, until in ((explores, episodes // 2), (RandomPolicy(agent.action), episodes)):
        while collector.episodes < until:
            collector.collect(policy, 1)
    return replay


def _spread(batch: SequenceBatch, count: int) -> SequenceBatch:
    """At most ``count`` sequences, evenly from first to last."""
    chosen = torch.linspace(0, len(batch.reward) - 1, min(count, len(batch.reward))).round().long()
    return SequenceBatch(*(x[chosen] for x in batch))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in rows) + "\n]\n")


def _facts(agent: Agent, data: Experience, folder: RunFolder, checkpoint: str | None) -> dict[str, str | float]:
    transition, default = agent.world_model.rssm.transition, folder.best if folder.best.exists() else folder.last
    return {
        "task": data.task,
        "transition": f"{type(transition).__name__}, K = {transition.members}",
        "latents": type(agent.world_model.latents).__name__,
        "weights": Path(checkpoint or default).name,
        "updates": agent.updates,
        "environment frames": data.frames,
    }


def _learning(evaluations: list[dict[str, Any]]) -> Section:
    if not evaluations:
        return Section("Learning", ["The run has not been evaluated yet."])
    curve = Picture(plots.to_png(plots.learning_curve(evaluations)), "Evaluations: mean, and one standard deviation.")
    last = {row.get("policy", "actor"): row for row in evaluations}
    rows = [
        (
            policy,
            row["updates"],
            row["frames"],
            len(row["returns"]),
            f"{row['return_mean']:.1f} \u00b1 {row['return_std']:.1f}",
        )
        for policy, row in last.items()
    ]
    return Section("Learning", [curve, Table(("policy", "updates", "frames", "episodes", "return"), rows)])


def _dream(agent: Agent, batch: SequenceBatch, context: int) -> Picture:
    file = io.BytesIO()
    strip(open_loop(agent.world_model, _spread(batch, 3), context)).save(file, format="png")
    return Picture(file.getvalue(), "Held-out sequences. Right of the orange line the model is shown no more images.")


def _table(head: Sequence[str], lines: Mapping[str, Sequence[float]]) -> Table:
    rows: list[list[str | float]] = [[name, *values] for name, values in lines.items()]
    return Table(head, rows)


def _at(values: np.ndarray) -> list[float]:
    """The values of some steps."""
    return [float(values[step - 1]) for step in _some(len(values))]


def _some(horizon: int) -> list[int]:
    return sorted({1, *(math.ceil(horizon * share) for share in (0.25, 0.5, 0.75, 1))})


def _errors(found: Calibration) -> list[str | Table | Picture]:
    figure = plots.error_by_horizon(found.errors, found.bias)
    head = ("error", *(f"step {step}" for step in _some(len(found.bias))))
    lines = found.errors | {"imagined minus real return": found.bias}
    return [
        Picture(plots.to_png(figure), "How dreams go wrong. Of all held-out sequences."),
        _table(head, {name: _at(x) for name, x in lines.items()}),
    ]


def _doubts(found: Calibration) -> list[Section]:
    """Does doubt go with error, and is it of the right size?"""
    correlation = Picture(
        plots.to_png(plots.correlation_by_horizon(found.correlation)),
        "Spearman's rank correlation of doubt and error. Gaps: all sequences have the same doubt.",
    )
    names = next(iter(found.correlation.values()))
    pooled = {name: [each[name] for each in found.pooled_correlation.values()] for name in names}
    labels = {"raw": "as it is", "temperature": f"times {found.temperature:.3g}"}
    curves = {labels[name]: curve for name, curve in found.reliability.items()}
    return [
        Section(
            "Does doubt go with error?",
            [correlation, "Over all steps at once:", _table(("measure", *found.pooled_correlation), pooled)],
        ),
        Section(
            "Is doubt of the right size?",
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


def _shifts(aurocs: dict[str, dict[str, float]]) -> Section:
    figure = plots.auroc_bars(aurocs)
    rows = {shift: list(values.values()) for shift, values in aurocs.items()}
    return Section(
        "Does it notice images that it has never seen?",
        [
            Picture(plots.to_png(figure), "How surely the doubt of one step tells shifted images from real ones."),
            _table(("shift", *next(iter(aurocs.values()))), rows),
            "Surprise has seen the image that it judges. The others are doubts of what comes next.",
        ],
    )
