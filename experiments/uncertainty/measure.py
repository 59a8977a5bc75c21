"""What a trained model knows of its own errors, as rows of figures. Legend: N sequences, T records, H horizon."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.uncertainty.data import CONTEXT, LIMIT, Sequences, Task
from worldmodel.insight.calibration import (
    HorizonErrors,
    auroc,
    coverage,
    expected_calibration_error,
    fit_temperature,
    interval,
    interval_scale,
    joined,
    open_loop_errors,
    rank_correlation,
)
from worldmodel.insight.novelty import novelty
from worldmodel.insight.report import filter_uncertainty
from worldmodel.insight.rollouts import reconstruction_error
from worldmodel.insight.shifts import SHIFTS, shifted
from worldmodel.insight.uncertainty import pixel_disagreement, reward_disagreement
from worldmodel.model.world_model import WorldModel
from worldmodel.types import SequenceBatch

HORIZONS = (1, 2, 5, 10, 15)
LONG = 45  # steps of the dreams that drift
Row = dict[str, Any]


def row(measure: str, case: str, metric: str, horizon: int | None, value: float) -> Row:
    return {"measure": measure, "case": case, "metric": metric, "horizon": horizon, "value": round(float(value), 4)}


def save(path: Path, rows: list[Row]) -> None:
    """The whole file or none: it says that the job is done."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(rows))
    os.replace(temporary, path)


@torch.no_grad()
def one_step(model: WorldModel, batch: SequenceBatch) -> dict[str, np.ndarray]:
    """Uncertainties (N, T - 1) of the step to each record but the first, from the filtered state before it."""
    torch.manual_seed(0)
    found = model.observe(batch, mode=True)
    prior, deter, uncertainties = found.prior[:, :, 1:], found.state.deter[:, 1:], filter_uncertainty(model, found)
    surprise = uncertainties.pop("surprise")
    uncertainties |= {
        "reward": reward_disagreement(model, deter, prior),
        "pixels": pixel_disagreement(model, deter, prior),
        "surprise": surprise,
        "reconstruction": reconstruction_error(model, found.state.feature, batch.image)[:, 1:],
    }
    return {name: uncertainty.numpy() for name, uncertainty in uncertainties.items()}


def seen_and_unseen(task: Task, model: WorldModel, held: dict[str, Sequences]) -> list[Row]:
    """AUROC of steps from the hole of states, of its actions, and on shifted images, against those like the data."""
    seen = one_step(model, held["seen"].batch)
    inside = task.in_hole(held["state"].state)[:, :-1]
    state = one_step(model, held["state"].batch)
    strong = (held["action"].batch.action[:, 1:, task.component].abs() > LIMIT).numpy()
    action = one_step(model, held["action"].batch)
    unseen = {"hole_states": {n: x[inside] for n, x in state.items()}}
    unseen["hole_actions"] = {n: x[strong] for n, x in action.items()}
    unseen |= {name: one_step(model, shifted(held["seen"].batch, shift)) for name, shift in SHIFTS.items()}
    known = dict(seen)
    for found in (seen, *unseen.values()):
        found["novelty"] = novelty(found, known)
    return [row(m, case, "auroc", 1, auroc(x[m], seen[m])) for case, x in unseen.items() for m in seen]


def both(errors: HorizonErrors) -> dict[str, Tensor]:
    """The true errors by name; a latent's is in the eyes of the model itself."""
    return {"pixels": errors.pixel_error, "reward": errors.reward_error, "latent": errors.latent_error}


def correlations(errors: HorizonErrors, case: str) -> list[Row]:
    """Rank correlation of each uncertainty with each true error, at a horizon and over all of them."""
    rows = []
    for measure, uncertainty in errors.measures.items():
        for error, wrong in both(errors).items():
            metric = f"rank_correlation_{error}"
            for horizon in HORIZONS:
                valid = errors.valid[:, horizon - 1]
                if valid.sum() >= 30:
                    pair = (uncertainty[:, horizon - 1][valid], wrong[:, horizon - 1][valid])
                    rows.append(row(measure, case, metric, horizon, rank_correlation(*pair)))
            rows.append(
                row(measure, case, metric, None, rank_correlation(uncertainty[errors.valid], wrong[errors.valid]))
            )
    return rows


def calibrated(errors: HorizonErrors, case: str) -> list[Row]:
    """Intervals and calibration error of reward and return: fitted on every other sequence, tested on the rest."""
    rows = []
    fit = torch.arange(len(errors.valid)) % 2 == 0
    spread = errors.measures["reward"]
    # a member that agrees with itself has no spread, and neither has anything at a standstill
    floor = 0.1 * float(errors.reward_error[errors.valid].mean()) + 1e-6
    steps = torch.arange(1, spread.shape[1] + 1)
    signed = errors.imagined_reward - errors.reward
    cases = {
        "reward": (signed, spread + floor),
        "return": (signed.cumsum(1), spread.cumsum(1) + floor * steps),
    }
    for what, (error, width) in cases.items():
        inside, raw, tempered = [], [], []
        for horizon in range(1, spread.shape[1] + 1):
            at = (slice(None), horizon - 1)
            valid = errors.valid[at]
            a, b = valid & fit, valid & ~fit
            if min(a.sum(), b.sum()) < 30:
                continue
            scale = interval_scale(error[at][a], width[at][a])
            low, high = interval(torch.zeros_like(error[at][b]), width[at][b], scale)
            inside.append(coverage(error[at][b], low, high))
            temperature = fit_temperature(width[at][a], error[at][a])
            raw.append(expected_calibration_error(width[at][b], error[at][b]))
            tempered.append(expected_calibration_error(temperature * width[at][b], error[at][b]))
            if horizon in HORIZONS:
                rows.append(row("reward", case, f"coverage_{what}", horizon, inside[-1]))
        rows.append(row("reward", case, f"coverage_{what}", None, np.mean(inside)))
        rows.append(row("reward", case, f"calibration_error_{what}", None, np.mean(raw)))
        rows.append(row("reward", case, f"calibration_error_{what}_tempered", None, np.mean(tempered)))
    return rows


def optimism(errors: HorizonErrors, case: str) -> list[Row]:
    """Imagined minus real return, where nobody chose the actions for what they promise."""
    total = (errors.imagined_reward - errors.reward).cumsum(1)
    return [
        row("none", case, "imagined_minus_real_return", h, total[:, h - 1][errors.valid[:, h - 1]].mean())
        for h in HORIZONS
        if errors.valid[:, h - 1].any()
    ]


def drift(model: WorldModel, long: Sequences) -> list[Row]:
    """The trap: in a long dream the error grows, while the dream goes where the members agree.

    ``ratio`` is a mean over the first step's mean. ``missed`` is the share of the worst quarter of errors for which the
    uncertainty lies in its lower half: 0.5 is what an uncertainty that knows nothing would have.
    """
    horizon = min(LONG, long.batch.action.shape[1] - CONTEXT)
    errors = open_loop_errors(model, long.batch, CONTEXT, horizon)
    late, valid = horizon - 1, errors.valid[:, horizon - 1]
    rows = [
        row(
            "error", "drift", "ratio", horizon, errors.pixel_error[valid, late].mean() / errors.pixel_error[:, 0].mean()
        )
    ]
    wrong = errors.pixel_error[valid, late]
    worst = wrong >= wrong.quantile(0.75)
    for name, uncertainty in errors.measures.items():
        if float(uncertainty[:, 0].mean()) > 0:
            rows.append(
                row(name, "drift", "ratio", horizon, uncertainty[valid, late].mean() / uncertainty[:, 0].mean())
            )
            low = uncertainty[valid, late] <= uncertainty[valid, late].median()
            rows.append(row(name, "drift", "missed", horizon, low[worst].float().mean()))
    return rows


def measure(task: Task, model: WorldModel, held: dict[str, Sequences], long: Sequences) -> list[Row]:
    """Every figure of one model."""
    torch.manual_seed(0)
    errors = {name: open_loop_errors(model, x.batch, CONTEXT, HORIZONS[-1]) for name, x in held.items()}
    every = joined(list(errors.values()))
    rows = seen_and_unseen(task, model, held)
    for case, found in (("seen", errors["seen"]), ("everything", every)):
        rows += correlations(found, case) + calibrated(found, case) + optimism(found, case)
    return rows + drift(model, long)
