"""``python -m experiments.uncertainty.work OUT STAGE TASK [KIND SEED]``: one job of the study. run.py calls it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from experiments.uncertainty.data import TASKS, Sequences, held_out, training_data
from experiments.uncertainty.expected import action_shuffle, dreamt, expected
from experiments.uncertainty.exploit import exploited, filled
from experiments.uncertainty.measure import measure, save
from experiments.uncertainty.run import ACTOR_UPDATES, LENGTH, LONG, cases
from experiments.uncertainty.train import trained
from experiments.uncertainty.wrong import wrong


def collect(name: str, folder: Path) -> None:
    """All data of a task, which the jobs after this one read."""
    task = TASKS[name]
    training_data(task, folder / "replay")
    if any(stage == "measure" and of == name for stage, of, _, _ in cases()):
        held_out(task, folder, LENGTH)
        held_out(task, folder, min(LONG, task.steps), ("seen",))
    save(folder / "data.json", [])


def ask(stage: str, name: str, kind: str, seed: int, folder: Path) -> None:
    """Train the model of a kind and seed, or ask something of it."""
    task = TASKS[name]
    replay = training_data(task, folder / "replay")
    model = trained(task, kind, replay, seed, folder)
    if stage == "train":
        return
    long = min(LONG, task.steps)

    def drifting() -> Sequences:
        return held_out(task, folder, long, ("seen",))["seen"]

    def measured() -> list:
        return measure(task, model, held_out(task, folder, LENGTH), drifting())

    stages: dict[str, Callable[[], list]] = {
        "measure": measured,
        "expected": lambda: expected(dreamt(model, drifting().batch)) + action_shuffle(model, drifting().batch),
        "error": lambda: wrong(task, model, held_out(task, folder, LENGTH)),
        "exploit": lambda: exploited(
            task, kind, model, replay=replay, seed=seed, updates=ACTOR_UPDATES, seen=drifting().batch
        ),
        "fill": lambda: filled(task, kind, model, seed=seed, updates=ACTOR_UPDATES, folder=folder / f"filled_{seed}"),
    }
    rows = [{"task": name, "transition": kind, "seed": seed} | row for row in stages[stage]()]
    save(folder / f"{stage}_{kind}_{seed}.json", rows)


def main() -> None:
    out, stage, name, *rest = sys.argv[1:]
    os.environ.setdefault("MUJOCO_GL", "egl")
    start = time.monotonic()
    if stage == "data":
        collect(name, Path(out) / name)
    else:
        ask(stage, name, rest[0], int(rest[1]), folder=Path(out) / name)
    print(f"{' '.join(sys.argv[2:])}: {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
