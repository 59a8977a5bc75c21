"""Train tasks x seeds on Ray and write one page: ``python -m experiments.suite --tasks walker_walk reacher_easy``.

What was cut goes on where it was when the same command is given again; ``--page`` writes the page of what there is.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.runner import Job, exits, run_jobs
from experiments.runs import fit, share, task_file
from experiments.suite.page import write
from worldmodel.errors import UserError
from worldmodel.training.configs import find, names

TASKS = [
    *("cartpole_balance", "cartpole_swingup", "walker_stand", "walker_walk", "cheetah_run"),
    *("reacher_easy", "finger_spin", "ball_in_cup_catch", "pendulum_swingup", "hopper_stand"),
]


class Case(NamedTuple):
    """One run of the suite."""

    task: str
    preset: str
    seed: int

    def row(self, out: Path) -> Path:
        return out / self.preset / f"{self.task}_{self.seed}.json"

    def run(self, out: Path) -> Path:
        return self.row(out).with_suffix("")


def preset(configs: list[str]) -> str:
    """A name for what is laid over base.yaml and the task: ``laptop`` where nothing is."""
    return "+".join(Path(path).stem for path in configs) or "laptop"


def jobs(given: argparse.Namespace, out: Path) -> tuple[list[Job], dict[str, Path]]:
    """The random floors, then a seed of every task before the next; and the folder of each run by its job's name."""
    found, folders = [], {}
    for task in given.tasks:
        floor = out / "random" / f"{task}.json"
        command = ("-m", "experiments.suite.floor", task, str(floor))
        found.append(Job(f"random {task}", command, floor, floor.with_suffix(".log")))
    name = preset(given.configs)
    for case in [Case(task, name, seed) for seed in given.seeds for task in given.tasks]:
        row, run = case.row(out), case.run(out)
        labels = json.dumps({**case._asdict(), "cores": given.cores})
        words = fit([task_file(case.task), *given.configs], case.seed, run, given.extra)
        command = ("-m", "experiments.suite.train", str(run), str(row), labels, *words)
        job = Job(f"{case.task} {case.preset} {case.seed}", command, row, row.with_suffix(".log"), given.cores)
        found.append(job)
        folders[job.name] = run
    return found, folders


def check(given: argparse.Namespace) -> None:
    """Find what cannot be run before anything starts.

    Raises:
        UserError: there is no such task or configuration.
    """
    known = sorted(name.removeprefix("task/") for name in names("task"))
    for task in given.tasks:
        if task not in known:
            near = difflib.get_close_matches(task, known, n=1)
            raise UserError(
                f"no task {task}: {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(known)}"
            )
    for path in given.configs:
        find(path)


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.suite", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="names of files in configs/task")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--configs", nargs="*", default=[], help="laid over base and the task, such as size/12m")
    parser.add_argument("--cores", type=int, default=1, help="that each run keeps busy, and is pinned to")
    parser.add_argument("--out", type=Path, default=Path("runs/suite"), help="where the work and its page are kept")
    parser.add_argument("--address", help="of a Ray cluster that shares this folder; this machine alone without")
    parser.add_argument("--published", type=Path, help="a CSV of source, task, env_steps, score to compare with")
    parser.add_argument("--page", action="store_true", help="write the page of what is done, and run nothing")
    parser.add_argument("--docs", type=Path, help="a folder that gets the page too")
    own = words[: words.index("--")] if "--" in words else words
    given = parser.parse_args(own)
    given.extra = words[len(own) + 1 :]
    return given


def suite(words: list[str]) -> int:
    """The command; gives how many runs failed."""
    given = parse(words)
    check(given)
    out, failed = given.out.resolve(), []
    if not given.page:
        all_jobs, folders = jobs(given, out)
        failed = run_jobs(all_jobs, given.address, partial(_share, folders))
    for folder in filter(None, [out, given.docs]):
        write(out, folder, given.published)
    print(f"{out / 'suite.md'}: {len(failed)} failed", flush=True)
    return len(failed)


def _share(folders: dict[str, Path], job: Job) -> float:
    return share(folders[job.name]) if job.name in folders else 0.0


def main() -> None:
    exits("experiments.suite", lambda: suite(sys.argv[1:]))


if __name__ == "__main__":
    main()
