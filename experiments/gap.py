"""What policies are promised and what comes: ``python -m experiments.gap RUN...``, a row of a table for each.

What evaluates a run acts as surely as it can in held-out episodes of its task; ``wm.exploitation`` compares. An actor
that learned in another's world model is promised by that one. ``--weights 0 -1`` asks a planner (CEM) in the run's
world model instead, with each of these weights of uncertainty.

Legend: L records of an episode.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from experiments import offline, runner
from worldmodel.control.controller import LatentPolicy
from worldmodel.control.planner_controller import PlannerController
from worldmodel.control.planners import CEM
from worldmodel.insight.exploitation import exploitation
from worldmodel.training.calibrating import stacked
from worldmodel.training.loading import load_run
from worldmodel.training.randomness import own_randomness


def measured(run: Path, episodes: int, horizon: int, seed: int, weight: float | None = None) -> str:
    """The row of one run: of what evaluates it, or of a planner with a weight of uncertainty.

    Raises:
        UserError: the run is none, or has no task; or its episodes are too short.
    """
    agent, data = load_run(run, run / "checkpoints" / "last.ckpt", environments=min(4, episodes))
    data.needed_task()
    policy, who = agent.policy(explore=False), run.name
    if weight is not None:
        search = CEM(horizon=horizon, uncertainty_weight=weight, candidates=64, elites=8, iterations=3)
        policy = LatentPolicy(PlannerController(agent.world_model, None, data.action, planner=search))
        who = f"{who}, planner, weight {weight:g}"
    with own_randomness(seed), torch.no_grad():
        try:
            records = offline.driven(data.held_out("report"), policy, episodes=episodes)[:episodes]  # each (L,)
        finally:
            data.close()
        own = [stacked([(number, x)]) for number, x in enumerate(records)]
        found = exploitation(agent.world_model, own, policy.controller.acting(), horizon, mode=True)
    low, high = found.interval()
    earned = sum(float(x["reward"].sum()) for x in records) / len(records)
    means = f"{earned:.0f} | {found.imagined.mean():.1f} | {found.real.mean():.1f}"
    return f"| {who} | {means} | {found.gap:.1f} ({low:.1f} to {high:.1f}) |"


def gap(given: argparse.Namespace) -> int:
    """The command."""
    print(f"| run | return of {given.episodes} episodes | imagined, {given.horizon} steps | real | gap, 95% interval |")
    print("|---|---|---|---|---|")
    for run in given.runs:
        for weight in given.weights or [None]:
            print(measured(run, given.episodes, given.horizon, given.seed, weight=weight), flush=True)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--horizon", type=int, default=15, help="steps that are promised at once")
    parser.add_argument("--weights", type=float, nargs="+", help="of uncertainty, of a planner in the run's model")
    parser.add_argument("--seed", type=int, default=0)
    runner.exits("experiments.gap", lambda: gap(parser.parse_args()))


if __name__ == "__main__":
    main()
