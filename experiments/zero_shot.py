"""A task learned from what was explored without its reward: ``python -m experiments.zero_shot --out runs/zero_shot``.

As in Plan2Explore (Sekar et al. 2020): a run explores with a model that learns no reward, seeking what its members
disagree about, or at random. Each task of the body then says what every step of that data earns, and that alone is
learned from as in ``offline``: first a world model, then actors in it. The task is but evaluated in. Every training is
a job of the runner. Ends with ``page.md`` in ``--out``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

from experiments import offline, runner, runs
from worldmodel.errors import UserError
from worldmodel.experience import tasks
from worldmodel.experience.formats.own_replay import OwnReplay
from worldmodel.experience.vector import InProcess
from worldmodel.training.loading import load_run
from worldmodel.training.randomness import seed_for
from worldmodel.training.run_folder import RunFolder

NO_REWARD = ["--model.weights.reward", "0", "--schedule.evaluate_every", "1000000"]
WAYS = {
    "curious": ["--config", "policy/curious", *NO_REWARD],
    "random": ["--config", "policy/random", *NO_REWARD, "--schedule.updates", "1"],
}


def rewarded(run: Path, task: str) -> Iterator[np.ndarray]:
    """A run's whole episodes, records (L,), with the rewards that ``task`` gives.

    Each is played again: the same seed and actions give the same states.

    Raises:
        UserError: an image comes out another, so it was not that body; or episodes are not of one length, or some are
            no longer in the replay.
    """
    _, data = load_run(run)
    data.close()
    seed = seed_for(data.seed, 0, "environments")
    again = InProcess(task, data.num_envs, seed, **data.settings, episode_frames=data.episode_frames)
    numbered = [pair for replay in OwnReplay(run).replays for pair in replay.episodes(ended=True)]
    found = [records for _, records in numbered]
    try:
        if numbered and numbered[0][0] > 0:
            raise UserError(f"the first episodes of {run} have left its replay: explore for less")
        for at in range(0, len(found) - data.num_envs + 1, data.num_envs):
            group = found[at : at + data.num_envs]
            if len({len(records) for records in group}) > 1:
                raise UserError(f"{run} has episodes that end early: they cannot be told apart, name another task")
            records = np.stack(group)  # (N, L)
            for step in range(records.shape[1]):
                seen = again.step(records["action"][:, step])
                if not np.array_equal(seen.image, records["image"][:, step]):
                    raise UserError(f"{task} shows other images than {run}: name a task of the same body and start")
                records["reward"][:, step] = seen.reward
            yield from records
    finally:
        again.close()


def explore(given: argparse.Namespace, way: str, seed: int, out: Path) -> runner.Job:
    """The job that collects."""
    run = out / f"{way}_{seed}"
    done = run.with_suffix(".json")
    words = runs.fit([given.body, *given.config], seed, run, [*WAYS[way], "--schedule.rounds", str(given.explore)])
    command = ("-m", "experiments.suite.train", str(run), str(done), json.dumps({"way": way, "seed": seed}), *words)
    return runner.Job(f"explore {way} {seed}", command, done, run.with_suffix(".log"))


def kind(way: str, seed: int, task: str) -> str:
    """The name of what one way has collected, with a task's rewards."""
    return f"{way}_{seed}_{task}"


def learn(given: argparse.Namespace, out: Path) -> list[str]:
    """Learn each task from what each way has collected; gives the names of what failed."""
    todo, data = [], {}
    for seed, task, way in product(given.seeds, given.tasks, given.ways):
        explored, name = out / f"{way}_{seed}", kind(way, seed, task)
        data[name] = RunFolder(explored).read_config()["data"] | {"task": task}
        if not (out / name).exists():
            offline.write(rewarded(explored, task), out / name)
        todo += offline.jobs([seed], [name], given.variants)
    return offline.learn(todo, out, given, data)


def page(given: argparse.Namespace, out: Path) -> str:
    """The table, in Markdown: what the data earned by chance, and what was learned from it, each seed."""
    head = ("task", "explored", "rewarded steps", "return of the data: mean, best", *given.variants)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for task, way in product(given.tasks, given.ways):
        cells: list[list[str]] = [[] for _ in head[2:]]
        for seed in given.seeds:
            rewards = [np.load(path)["reward"] for path in sorted((out / kind(way, seed, task)).glob("*.npz"))]
            if not rewards:
                continue
            returns = [float(x.sum()) for x in rewards]
            cells[0].append(f"{np.mean(np.concatenate(rewards) > 0):.1%}")
            cells[1].append(f"{np.mean(returns):.0f}, {max(returns):.0f}")
            for cell, variant in zip(cells[2:], given.variants, strict=True):
                done = offline.Job(kind(way, seed, task), variant, seed).file(out, "json")
                cell += [f"{json.loads(done.read_text())['return_mean']:.0f}"] if done.exists() else []
        lines.append(f"| {task} | {way} | " + " | ".join("; ".join(cell) for cell in cells) + " |")
    return "\n".join([*lines, "", *offline.curves(out)]) + "\n"


def zero_shot(given: argparse.Namespace) -> int:
    """The command; gives how many runs failed.

    Raises:
        UserError: there is no such task, the tasks are not of one body, or Ray is not there.
    """
    for task in given.tasks:
        tasks.check(task)
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    exploring = [explore(given, way, seed, out) for seed, way in product(given.seeds, given.ways)]
    failed = runner.run_jobs(exploring, given.address) or learn(given, out)
    (out / "page.md").write_text(page(given, out))
    print((out / "page.md").read_text() + json.dumps({"failed": failed}))
    return len(failed)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--body", default="task/cartpole_swingup", help="the configuration that is explored in")
    parser.add_argument("--tasks", nargs="+", default=["cartpole_swingup", "cartpole_swingup_sparse"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="to explore")
    parser.add_argument("--out", type=Path, default=Path("runs/zero_shot"), help="where the work is kept")
    parser.add_argument("--explore", type=int, default=75, help="rounds of collecting")
    offline.options(parser, variants=("plain", "cautious"), seeds=(0,))
    runner.exits("experiments.zero_shot", lambda: zero_shot(parser.parse_args()))


if __name__ == "__main__":
    main()
