"""The whole study by one command: ``python -m benchmarks.study --out runs/study``, and ``... --page`` to write it up.

Each model, each measurement and each game is a file under ``--out``: a study that was cut goes on where it was. Two
processes share the work, one for each core.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

from experiments.processes import stay

TASKS = ("point_swamp", "point_aside", "cartpole_swingup")  # the second for its hole, which is out of everybody's way
SEEDS = (0, 1)
LENGTH = 20  # records of a held-out sequence: 5 of context and 15 to dream
LONG = 50
EXPLOITED = ("single", "shared", "independent", "independent_priors")
FILLED = ("independent_priors",)
ACTOR_UPDATES = 600

Job = tuple[str, str, str, int]  # stage, task, kind, seed


def jobs() -> list[Job]:
    """The work, the toy first: it is the quickest."""
    from benchmarks.study.train import KINDS

    toy, aside, real = TASKS
    found: list[Job] = []
    for seed in SEEDS:
        found += [("fill", name, kind, seed) for name in (toy, aside) for kind in FILLED]
        found += [("exploit", toy, kind, seed) for kind in EXPLOITED]
        found += [("measure", toy, kind, seed) for kind in KINDS]
    for seed in SEEDS:
        found += [("measure", real, kind, seed) for kind in KINDS]
        found += [("exploit", real, kind, seed) for kind in FILLED]
    # last, or two processes would train the same model at once
    found += [("error", name, kind, seed) for name in (toy, real) for kind in KINDS for seed in SEEDS]
    return found


def work(job: Job, out: Path) -> None:
    """Do one job unless its file is there."""
    stage, name, kind, seed = job
    path = out / name / f"{stage}_{kind}_{seed}.json"
    if path.exists():
        return
    import torch

    torch.set_num_threads(1)
    from benchmarks.study.data import TASKS as ALL
    from benchmarks.study.data import held_out, training_data
    from benchmarks.study.exploit import exploited, filled
    from benchmarks.study.measure import measure
    from benchmarks.study.train import trained
    from benchmarks.study.wrong import wrong

    task, folder, start = ALL[name], out / name, time.monotonic()
    replay = training_data(task, folder / "replay")
    model = trained(task, kind, replay, seed, folder)
    long = min(LONG, task.steps)

    def measured() -> list:
        return measure(task, model, held_out(task, folder, LENGTH), held_out(task, folder, long, ("seen",))["seen"])

    stages: dict[str, Callable[[], list]] = {
        "measure": measured,
        "error": lambda: wrong(task, model, held_out(task, folder, LENGTH)),
        "exploit": lambda: exploited(task, kind, model, replay, seed, ACTOR_UPDATES),
        "fill": lambda: filled(task, kind, model, seed, ACTOR_UPDATES, folder / f"filled_{seed}"),
    }
    rows = [{"task": name, "transition": kind, "seed": seed} | row for row in stages[stage]()]
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(rows))
    os.replace(temporary, path)
    print(f"{stage} {name} {kind} seed {seed}: {time.monotonic() - start:.0f} s", flush=True)


def worker(core: int, queue: multiprocessing.Queue, out: Path) -> None:
    stay({core})
    while (job := queue.get()) is not None:
        work(job, out)


def prepare(out: Path) -> None:
    """Collect all data, before two processes would do it at once."""
    from benchmarks.study.data import TASKS as ALL
    from benchmarks.study.data import held_out, training_data

    for name in TASKS:
        task = ALL[name]
        training_data(task, out / name / "replay")
        if any(stage == "measure" and of == name for stage, of, _, _ in jobs()):
            held_out(task, out / name, LENGTH)
            held_out(task, out / name, min(LONG, task.steps), ("seen",))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="where the work is kept")
    parser.add_argument("--page", action="store_true", help="write docs/uncertainty.json and .md from it")
    parser.add_argument("--only", default="", help="jobs whose name holds this text, such as 'measure point_swamp'")
    given = parser.parse_args()
    if given.page:
        from benchmarks.study.page import write

        write(given.out)
        return
    os.environ.setdefault("MUJOCO_GL", "egl")
    context = multiprocessing.get_context("spawn")
    first = context.Process(target=prepare, args=(given.out,))
    first.start()
    first.join()
    queue = context.Queue()
    for job in jobs():
        if given.only in " ".join(map(str, job)):
            queue.put(job)
    cores = sorted(os.sched_getaffinity(0))[:2]
    workers = [context.Process(target=worker, args=(core, queue, given.out)) for core in cores]
    for process in workers:
        queue.put(None)
        process.start()
    for process in workers:
        process.join()
    failed = [process.exitcode for process in workers if process.exitcode]
    print(json.dumps({"jobs": len(jobs()), "failed_workers": len(failed)}))
    raise SystemExit(bool(failed))
