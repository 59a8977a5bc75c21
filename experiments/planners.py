"""Who drives a checkpoint best, and at what price: ``python -m experiments.planners RUN [RUN ...]``.

For each run: at random, the actor, and each shipped planner alone and with the actor's proposals and critic's value.
Returns are of the same ten episodes. A decision is timed for one environment, on as many cores as the process may use.
Adds to ``docs/planners.json``, and writes ``docs/planners.md`` from it; ``--page`` does only
that, and ``--time`` measures the milliseconds anew.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
DATA, PAGE, NOTES = DOCS / "planners.json", DOCS / "planners.md", DOCS / "planners_notes.md"
PLANNERS = ("random_shooting", "cem", "icem", "mppi", "gradient", "ilqr")
EPISODES, DECISIONS = 10, 40
CORES = len(os.sched_getaffinity(0))  # asked before threads are bound


def controllers(agent: Any) -> Iterator[Any]:
    """Every way to act, as configs/policy has it."""
    from functools import partial

    from worldmodel.control.controller import ActorController, RandomController
    from worldmodel.training.acting import read_policy

    for make in (RandomController, ActorController):
        yield agent.controller(False, make)
    for name in PLANNERS:
        make = read_policy(name)
        yield agent.controller(False, partial(make, proposals=0, value=False))
        yield agent.controller(False, make)


def price(controller: Any, environments: Any) -> tuple[float, int]:
    """Median milliseconds of a decision for one environment, and states that the model is asked for in it."""
    import numpy as np
    import torch

    from worldmodel.control.controller import LatentPolicy
    from worldmodel.types import Observation

    policy, count = LatentPolicy(controller), [0]
    dynamics = getattr(controller, "dynamics", None)
    if dynamics is not None:
        rollout = dynamics.rollout

        def counted(state: torch.Tensor, actions: torch.Tensor) -> Any:
            count[0] += actions.shape[0] * actions.shape[1]
            return rollout(state, actions)

        dynamics.rollout = counted  # a step is a rollout of one
    environments.restart()
    step_ = environments.step(np.zeros((environments.num_envs, controller.action.size), np.float32))
    memory, times = policy.initial(1), []
    for _ in range(DECISIONS):
        seen = Observation(torch.from_numpy(step_.image[:1]), torch.from_numpy(step_.is_first[:1]))
        before = time.perf_counter()
        with torch.no_grad():
            action, memory = policy(seen, memory)
        times.append(1000 * (time.perf_counter() - before))
        step_ = environments.step(action.numpy().repeat(environments.num_envs, 0))
    return float(np.median(times)), count[0] // DECISIONS


def measure(run: Path, command: str) -> list[dict[str, Any]]:
    """Rows of one run."""
    import numpy as np
    import torch

    from worldmodel.control.controller import LatentPolicy
    from worldmodel.experience.collector import run_episodes
    from worldmodel.training.loading import load_run

    agent, data = load_run(run, environments=EPISODES)
    environments = data.held_out("report")
    rows = []
    for controller in controllers(agent):
        torch.manual_seed(0)
        returns = [x.return_ for x in run_episodes(environments, LatentPolicy(controller), EPISODES)]
        milliseconds, evaluations = price(controller, environments)
        row = {"task": data.task, "policy": controller.name, "seed": data.seed, "updates": agent.updates}
        row |= {"return_mean": round(float(np.mean(returns)), 1), "return_std": round(float(np.std(returns)), 1)}
        row |= {"ms_per_decision": round(milliseconds, 2), "model_evaluations": evaluations, "episodes": EPISODES}
        row |= {"cores": CORES, "command": command}
        print(json.dumps(row), flush=True)
        rows.append(row)
    data.close()
    return rows


def timed_again(run: Path, rows: list[dict[str, Any]]) -> None:
    """Put new prices into the rows of a run, whose returns stay."""
    from worldmodel.training.loading import load_run

    agent, data = load_run(run, environments=1)
    own = {row["policy"]: row for row in rows if (row["task"], row["seed"]) == (data.task, data.seed)}
    for controller in controllers(agent):
        row = own[controller.name]
        milliseconds, row["model_evaluations"] = price(controller, data.held_out("report"))
        row["ms_per_decision"] = round(milliseconds, 2)
        print(row["policy"], row["ms_per_decision"], flush=True)
    data.close()


def page(rows: list[dict[str, Any]]) -> None:
    """The page, from all rows."""
    lines = [NOTES.read_text().strip()] if NOTES.exists() else ["# Planners"]
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        lines += ["", f"## {task}", "", f"Checkpoint of {own[0]['updates']:,} updates, `{own[0]['command']}`.", ""]
        lines += ["| policy | return | ms a decision | model evaluations |", "|---|---|---|---|"]
        for row in own:
            cells = (row["policy"], f"{row['return_mean']:.0f} ± {row['return_std']:.0f}")
            lines.append(f"| {cells[0]} | {cells[1]} | {row['ms_per_decision']:.1f} | {row['model_evaluations']:,} |")
    PAGE.write_text("\n".join(lines) + "\n")


def save(rows: list[dict[str, Any]]) -> None:
    DATA.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--time", action="store_true", help="only time the decisions again")
    given = parser.parse_args()
    rows = json.loads(DATA.read_text()) if DATA.exists() else []
    if not given.page:
        from worldmodel.__main__ import tune_for_cpu

        tune_for_cpu()
        for run in given.runs:
            if given.time:
                timed_again(run, rows)
                continue
            new = measure(run, f"python -m experiments.planners runs/{run.name}")
            rows = [row for row in rows if (row["task"], row["seed"]) != (new[0]["task"], new[0]["seed"])] + new
            save(rows)
    save(rows)
    page(rows)
    best = {row["task"]: row["policy"] for row in sorted(rows, key=lambda row: row["return_mean"])}
    print(json.dumps({"best": best}))


if __name__ == "__main__":
    main()
