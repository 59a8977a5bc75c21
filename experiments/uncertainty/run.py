"""The whole study by one command: ``python -m experiments.uncertainty --out runs/study``; ``--page`` writes it up.

Each model, each measurement and each game is a file under ``--out``, and a job of the runner: a study that was cut goes
on where it was. Data come first, then the models, then what is asked of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from experiments.runner import Job, run_jobs

# the second for its hole, which is out of everybody's way; the fourth for a hole that everybody falls into
TASKS = (
    "point_swamp",
    "point_aside",
    "cartpole_swingup",
    "cartpole_balance",
    "reacher_easy",
    "finger_spin",
    "walker_walk",
)
BODIES = (
    "independent_heads",
    "single_softmax",
)  # what the last three are asked of: the default, and one without members
SEEDS = (0, 1)
LENGTH = 20  # records of a held-out sequence: 5 of context and 15 to dream
LONG = 50
EXPLOITED = ("single", "shared", "independent_heads", "independent", "independent_priors")
FILLED = ("independent_priors",)
ACTOR_UPDATES = 600

Case = tuple[str, str, str, int]  # stage, task, kind, seed


def cases() -> list[Case]:
    """What is asked of the models, the toy first: it is the quickest."""
    from experiments.uncertainty.train import KINDS

    toy, aside, real, balance, *bodies = TASKS
    found: list[Case] = []
    for seed in SEEDS:
        found += [("fill", name, kind, seed) for name in (toy, aside) for kind in FILLED]
        found += [("exploit", toy, kind, seed) for kind in EXPLOITED]
        found += [("measure", toy, kind, seed) for kind in KINDS]
    for seed in SEEDS:
        found += [("measure", real, kind, seed) for kind in KINDS]
        found += [("exploit", real, kind, seed) for kind in (*FILLED, "independent_heads")]
        found += [("exploit", balance, "independent_heads", seed)]
    last = ("error", "expected")
    found += [(x, name, kind, seed) for x in last for name in (toy, real) for kind in KINDS for seed in SEEDS]
    asked = [("measure", kind) for kind in BODIES] + [(x, BODIES[0]) for x in ("expected", "error", "exploit")]
    return found + [(x, name, kind, seed) for seed in SEEDS for name in bodies for x, kind in asked]


def stages(out: Path, only: str = "") -> list[list[Job]]:
    """Jobs whose name holds ``only``, in three stages of which each needs what the one before it left."""
    chosen = [case for case in cases() if only in " ".join(map(str, case))]
    tasks = [task for task in TASKS if any(case[1] == task for case in chosen)]
    models = dict.fromkeys((task, kind, seed) for _, task, kind, seed in chosen)
    data = [job(out, out / task / "data.json", "data", task) for task in tasks]
    trained = [job(out, out / task / f"{kind}_{seed}.pt", "train", task, kind, seed) for task, kind, seed in models]
    asked = [job(out, answer(out, case), *case) for case in chosen]
    return [data, trained, asked]


def answer(out: Path, case: Case) -> Path:
    """The file of rows that a case leaves."""
    stage, task, kind, seed = case
    return out / task / f"{stage}_{kind}_{seed}.json"


def job(out: Path, done: Path, *words: str | int) -> Job:
    name = " ".join(map(str, words))
    command = ("-m", "experiments.uncertainty.work", str(out), *map(str, words))
    return Job(name, command, done, out / "logs" / f"{name.replace(' ', '_')}.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="where the work is kept")
    parser.add_argument("--address", help="of a Ray cluster that shares this folder; this machine alone without")
    parser.add_argument("--page", action="store_true", help="write docs/uncertainty.json and .md from it")
    parser.add_argument("--only", default="", help="jobs whose name holds this text, such as 'measure point_swamp'")
    given = parser.parse_args()
    if given.page:
        from experiments.uncertainty.page import write

        write(given.out)
        return
    failed: list[str] = []
    todo = stages(given.out.resolve(), given.only)
    for stage in todo:
        failed = failed or run_jobs(stage, given.address)
    print(json.dumps({"jobs": sum(map(len, todo)), "failed": failed}))
    raise SystemExit(bool(failed))
