"""Learning from data alone, plain and cautious: ``python -m experiments.offline RUN --out runs/offline``.

From a trained run up to three data sets are made, in V-D4RL's layout and kinds (Lu et al. 2023): ``random`` actions;
``expert``, its actor as it explores; ``mixed``, that actor with a share of its actions replaced by random ones, another
share in every episode, from none to all. Each is imported, and trained on with two seeds: plain, with
``policy/cautious``, with ``policy/pessimistic``, with ``policy/cloning`` and, ``unusual``, cautious in units of error:
what the world model's calibration expects beyond the error of held-out dreams (``RewardErrorWeight``). The run's task
is but evaluated in, and calibrated with random actions in. Each data set first has its world model, which learns alone;
all actors then learn in that one, frozen (as MOPO, Yu et al. 2020, and MOReL, Kidambi et al. 2020, do); or, with
``--model-rounds 0``, both together. Every training is a job of the runner: what was cut goes on. Ends with ``page.md``
in ``--out``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments import runner, runs
from worldmodel.control.controller import ActorController, LatentPolicy, random_action
from worldmodel.errors import UserError
from worldmodel.experience.collector import Collector, Policy, RandomPolicy
from worldmodel.experience.replay import Replay
from worldmodel.experience.vector import Environments
from worldmodel.training.loading import load_run
from worldmodel.training.run_folder import RunFolder
from worldmodel.types import LatentState

KINDS = ("random", "mixed", "expert")
POLICIES = ("cautious", "pessimistic", "cloning")
VARIANTS: dict[str, list[str]] = {"plain": []} | {name: [f"policy/{name}"] for name in POLICIES} | {"unusual": []}
MODEL = "model"  # the variant without an actor
ALONE = ["--model.actor_critic", "null", "--schedule.evaluate_every", "1000000"]  # but for an evaluation at its end
CAUTION = "--model.actor_critic.init_args.uncertainty_weight"


class Job(NamedTuple):
    """One training run."""

    kind: str
    variant: str
    seed: int

    def folder(self, out: Path) -> Path:
        return out / f"{self.kind}_{self.variant}_{self.seed}"

    def file(self, out: Path, ending: str) -> Path:
        """Beside the folder; no ``with_suffix``, for a kind may have dots."""
        return out / f"{self.folder(out).name}.{ending}"


class Diluted(ActorController):
    """The actor, a share of whose actions is replaced by random ones: another share in every episode, from 0 to 1."""

    def initial(self, n: int) -> Tensor:
        return torch.zeros(n, 1)

    def act(self, state: LatentState, memory: Tensor, explore: bool = False) -> tuple[Tensor, Tensor]:
        share = torch.where(memory > 0, memory, torch.rand_like(memory).clamp_min(1e-6))  # 0: the episode begins
        action, _ = super().act(state, (), explore)
        other = random_action(self.action, len(action)).to(action)
        return torch.where(torch.rand_like(share) < share, other, action), share


def collect(run: Path, out: Path, steps: int, kinds: Iterable[str] = KINDS) -> None:
    """Write the data sets that are not there, each of so many steps."""
    agent, data = load_run(run)
    diluted = LatentPolicy(Diluted(agent.world_model, agent.actor_critic, data.action), explore=True)
    policies: dict[str, Policy] = {
        "random": RandomPolicy(data.action),
        "mixed": diluted,
        "expert": agent.policy(explore=True),
    }
    try:
        for kind in kinds:
            if (out / kind).exists():
                continue
            torch.manual_seed(0)
            write(driven(data.held_out("report"), policies[kind], steps), out / kind)
    finally:
        data.close()


def write(episodes: Iterable[np.ndarray], folder: Path) -> None:
    """Records (L,) of whole episodes as V-D4RL's files, one for each; the folder is there when all of them are."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / folder.name
        made.mkdir()
        for number, records in enumerate(episodes):
            np.savez_compressed(
                made / f"episode_{number:05d}-{len(records)}.npz",
                image=records["image"].transpose(0, 2, 3, 1),
                action=records["action"],
                reward=records["reward"],
                discount=1.0 - records["is_terminal"],
                is_first=records["is_first"],
                is_last=np.arange(len(records)) == len(records) - 1,
                is_terminal=records["is_terminal"],
            )
        made.rename(folder)


@torch.no_grad()
def driven(environments: Environments, policy: Policy, steps: int = 0, episodes: int = 0) -> list[np.ndarray]:
    """Whole episodes of a policy, records (L,) each: as many as have so many steps and as are asked for."""
    with tempfile.TemporaryDirectory() as temporary:
        replay = Replay(
            temporary,
            image_shape=environments.image_shape,
            action_size=environments.action.size,
            vector_size=environments.vector_size,
        )
        collector, taken = Collector(environments, replay), 0
        environments.restart()
        while taken < steps or collector.episodes < episodes:
            taken += sum(episode.steps for episode in collector.collect(policy, 1))
        collector.collect(policy, 1)  # begins others, so that the last ones are known to have ended
        return [records for _, records in replay.episodes(ended=True)]


def jobs(seeds: Iterable[int], kinds: Iterable[str] = KINDS, variants: Iterable[str] = tuple(VARIANTS)) -> list[Job]:
    """A seed of everything before the next."""
    return [Job(kind, variant, seed) for seed, kind, variant in product(seeds, kinds, variants)]


def prepare(job: Job, out: Path, size: int) -> None:
    """Import a job's data, unless it is there."""
    if not (job.folder(out) / "replay").exists():
        words = ["import", "v-d4rl", str(out / job.kind), "--run", str(job.folder(out)), "--size", str(size)]
        subprocess.run([sys.executable, "-m", "worldmodel", *words], cwd=runner.ROOT, check=True)


def runner_job(job: Job, out: Path, configs: list[str], extra: list[str]) -> runner.Job:
    """The job as the runner sees it."""
    run = job.folder(out)
    named, more = (["policy/random"], ALONE) if job.variant == MODEL else (VARIANTS[job.variant], [])
    words = runs.fit([*configs, *named], job.seed, run, ["--offline", *extra, *more])
    done = job.file(out, "json")
    command = ("-m", "experiments.suite.train", str(run), str(done), json.dumps(job._asdict()), *words)
    return runner.Job(" ".join(map(str, job)), command, done, job.file(out, "log"))


def page(out: Path, seeds: list[int]) -> str:
    """The table, in Markdown: what each data set earned itself, and what was learned from it."""
    lines = [
        "| data | its own return: mean, least to most | " + " | ".join(VARIANTS) + " |",
        "|---" * (2 + len(VARIANTS)) + "|",
    ]
    for kind in KINDS:
        own = [float(np.load(path)["reward"].sum()) for path in sorted((out / kind).glob("*.npz"))]
        if not own:  # not among those that were asked for
            continue
        cells = [f"{np.mean(own):.0f}, {min(own):.0f} to {max(own):.0f} ({len(own)} episodes)"]
        for variant in VARIANTS:
            files = [Job(kind, variant, seed).file(out, "json") for seed in seeds]
            found = [json.loads(path.read_text())["return_mean"] for path in files if path.exists()]
            each = ", ".join(f"{x:.0f}" for x in found)
            cells.append(f"{np.mean(found):.0f} ({each})" if found else "")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *curves(out)]) + "\n"


def curves(out: Path) -> list[str]:
    """What each training earned by updates, those under way too: a line for each."""
    lines = ["| training | return, by updates |", "|---|---|"]
    for path in sorted(out.glob("*/evaluations.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        each = ", ".join(f"{row['return_mean']:.0f} at {row['updates']:,}" for row in rows)
        lines.append(f"| {path.parent.name} | {each} |")
    return lines


def evaluated_in(data: Mapping[str, Any]) -> list[str]:
    """Words that name the task to evaluate in, from the ``data`` section of a run's configuration."""
    return [f"--data.{name}={data[name]}" for name in ("task", "action_repeat", "size")]


def unusual(model: Path, value: float) -> str:
    """The option's value for caution in units of the error that a run's calibration has."""
    given = {"calibration": str(model / "calibration.json"), "value": value, "unusual": True}
    return json.dumps({"class_path": "worldmodel.insight.caution.RewardErrorWeight", "init_args": given})


def learn(
    todo: Iterable[Job], out: Path, given: argparse.Namespace, data: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Train what is asked for, world models first; gives the names of what failed.

    Args:
        todo: the actors' trainings.
        out: where their data lies, and they will.
        given: of ``options``.
        data: by kind of data, the ``data`` section of the configuration of a run whose task to evaluate in.

    Raises:
        UserError: ``unusual`` is asked for, and no world model learns first.
    """

    def ready(job: Job, rounds: int, *more: str) -> runner.Job:
        prepare(job, out, data[job.kind]["size"])
        extra = [*evaluated_in(data[job.kind]), *(f"--{word}" for word in given.set)]
        return runner_job(job, out, given.config, [*extra, f"--schedule.rounds={rounds}", *more])

    todo = list(todo)
    if not given.model_rounds and any(job.variant == "unusual" for job in todo):
        raise UserError("unusual asks the calibration of a world model that learned first: not with --model-rounds 0")
    if given.model_rounds:
        models = dict.fromkeys(job._replace(variant=MODEL) for job in todo)
        if failed := runner.run_jobs([ready(job, given.model_rounds) for job in models], given.address):
            return failed
    made = []
    for job in todo:
        model = job._replace(variant=MODEL).folder(out)
        more = [f"{CAUTION}={given.weight:g}"] if job.variant == "cautious" and given.weight is not None else []
        more += [f"{CAUTION}={unusual(model, given.unusual)}"] if job.variant == "unusual" else []
        if given.model_rounds:
            more += [f"--pretrained={model}", "--model.freeze_world_model=true"]
        made.append(ready(job, given.rounds, *more))
    return runner.run_jobs(made, given.address)


def offline(given: argparse.Namespace) -> int:
    """The command; gives how many runs failed.

    Raises:
        UserError: the run is none, or Ray is not there.
    """
    out, data = given.out.resolve(), RunFolder(given.run).read_config()["data"]
    out.mkdir(parents=True, exist_ok=True)
    collect(given.run, out, given.steps, given.kinds)
    todo = jobs(given.seeds, given.kinds, given.variants)
    failed = learn(todo, out, given, dict.fromkeys(KINDS, data))
    (out / "page.md").write_text(page(out, given.seeds))
    print((out / "page.md").read_text() + json.dumps({"runs": len(todo), "failed": failed}))
    return len(failed)


def options(
    parser: argparse.ArgumentParser, variants: Sequence[str] = tuple(VARIANTS), seeds: Sequence[int] = (0, 1)
) -> None:
    """What ``learn`` reads, with the defaults of those that differ."""
    parser.add_argument("--rounds", type=int, default=50, help="of 40 updates, each training of an actor")
    text = "of 40 updates that the world model learns for alone, before it is frozen; 0: it learns with the actor"
    parser.add_argument("--model-rounds", type=int, default=150, help=text)
    text = "of uncertainty where it is cautious; that of policy/cautious without"
    parser.add_argument("--weight", type=float, help=text)
    parser.add_argument("--unusual", type=float, default=-20.0, help="of the error, where only unusual error counts")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(variants), help="of the actor")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--config", nargs="*", default=[], help="laid over base in every training")
    parser.add_argument("--set", nargs="*", default=[], help="more of its options, as NAME=VALUE")
    parser.add_argument("--address", help="of a Ray cluster that shares this folder; this machine alone without")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a trained run, of whose task and policy the data is")
    parser.add_argument("--out", type=Path, default=Path("runs/offline"), help="where the work is kept")
    parser.add_argument("--steps", type=int, default=20_000, help="of each data set")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of data to learn from")
    options(parser)
    runner.exits("experiments.offline", lambda: offline(parser.parse_args()))


if __name__ == "__main__":
    main()
