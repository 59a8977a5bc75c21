"""What policies are promised and what comes: ``python -m experiments.gap RUN...``, a row of a table for each.

What evaluates a run acts as surely as it can in held-out episodes of its task; ``wm.exploitation`` compares. An actor
that learned in another's world model is promised by that one. ``--weights 0 -1`` asks a planner (CEM) in the run's
world model instead, with each of these weights of uncertainty; ``--unusual -20`` one with so much of the error that the
run's calibration expects beyond that of held-out dreams (``RewardErrorWeight``).

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
from worldmodel.insight.caution import Caution
from worldmodel.insight.exploitation import exploitation
from worldmodel.training.agent import Agent
from worldmodel.training.calibrating import load_trust, stacked
from worldmodel.training.loading import load_run
from worldmodel.training.randomness import own_randomness


def planner(run: Path, agent: Agent, task: str, *, horizon: int, weight: float, unusual: bool) -> LatentPolicy:
    """CEM in a run's world model, with a weight of uncertainty, or of unusual error.

    Raises:
        UserError: the error was asked for, and the run has no calibration, or one of other weights.
    """
    caution = Caution(load_trust(run, agent, task)).weight(weight, unusual=True) if unusual else weight
    search = CEM(horizon=horizon, uncertainty_weight=caution, candidates=64, elites=8, iterations=3)
    return LatentPolicy(PlannerController(agent.world_model, None, agent.action, planner=search))


def measured(
    run: Path, episodes: int, horizon: int, seed: int, *, weight: float | None = None, unusual: bool = False
) -> str:
    """The row of one run: of what evaluates it, or of a planner with a weight of uncertainty, or of unusual error.

    Raises:
        UserError: the run is none, or has no task; its episodes are too short; or ``planner`` refuses.
    """
    agent, data = load_run(run, run / "checkpoints" / "last.ckpt", environments=min(4, episodes))
    task, policy, who = data.needed_task(), agent.policy(explore=False), run.name
    with own_randomness(seed), torch.no_grad():
        try:
            if weight is not None:
                policy = planner(run, agent, task, horizon=horizon, weight=weight, unusual=unusual)
                who = f"{who}, planner, {'unusual error' if unusual else 'weight'} {weight:g}"
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
        asked = [(x, False) for x in given.weights] + [(x, True) for x in given.unusual]
        for weight, unusual in asked or [(None, False)]:
            line = measured(run, given.episodes, given.horizon, given.seed, weight=weight, unusual=unusual)
            print(line, flush=True)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--horizon", type=int, default=15, help="steps that are promised at once")
    parser.add_argument(
        "--weights", type=float, nargs="+", default=[], help="of uncertainty, of a planner in the run's model"
    )
    parser.add_argument("--unusual", type=float, nargs="+", default=[], help="of unusual error, of such a planner")
    parser.add_argument("--seed", type=int, default=0)
    runner.exits("experiments.gap", lambda: gap(parser.parse_args()))


if __name__ == "__main__":
    main()
