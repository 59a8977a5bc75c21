"""A training run as experiments see it: the command line that makes it, and what its folder says."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from worldmodel.training.configs import merged


def fit(configs: list[str], seed: int, run: Path, extra: list[str]) -> list[str]:
    """What follows ``worldmodel`` to train, or to resume, at the root of the repository."""
    given = [word for path in configs for word in ("--config", path)]
    return ["fit", *given, "--seed", str(seed), *extra, "--run", str(run)]


def task_file(task: str) -> str:
    """The configuration of a task."""
    return f"task/{task}"


def settings(task: str) -> dict[str, Any]:
    """The ``data`` section of a task: base's, with what the task's own file says."""
    return merged(f"task/{task}")["data"]


def share(run: Path) -> float:
    """How much of a run's updates are made, in [0, 1]."""
    config, table = run / "config.yaml", run / "metrics.csv"
    if not config.exists() or not table.exists():
        return 0.0
    given = yaml.safe_load(config.read_text())
    planned = given["schedule"]["rounds"] * given["schedule"]["updates"]
    with table.open() as file:
        made = [int(row["updates"]) for row in csv.DictReader(file) if row.get("updates")]
    return min(1.0, made[-1] / planned) if made else 0.0


def row(run: Path) -> dict[str, Any]:
    """What a run came to: its last evaluation, whatever came before, and the curve of all of them."""
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["policy"] == lines[0]["policy"]]  # it may have been validated by others
    last = lines[-1]
    return {
        "policy": last["policy"],
        "frames": last["frames"],
        "updates": last["updates"],
        "minutes": round(last["seconds"] / 60, 1),
        "return_mean": last["return_mean"],
        "return_std": last["return_std"],
        "episodes": len(last["returns"]),
        "curve": [[x["frames"], round(x["seconds"] / 60, 2), x["return_mean"]] for x in lines],
    }


def at_frames(curve: list[list[float]], frames: float) -> float:
    """The return at ``frames`` of a curve of [frames, minutes, return], on a line between the evaluations around it."""
    x, _, y = zip(*curve, strict=True)
    return float(np.interp(frames, x, y))


def at_minutes(curve: list[list[float]], minutes: float) -> float:
    """The same at ``minutes`` of training."""
    _, x, y = zip(*curve, strict=True)
    return float(np.interp(minutes, x, y))
