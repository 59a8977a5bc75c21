"""What caution costs where nothing is to be won: the planner of a run that knows its task, plain and cautious.

``python -m experiments.uncertainty.cost RUN --transition independent`` plays the same episodes in each manner, with
what the run's own calibration says, and leaves rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.uncertainty.asked import keep, parser
from experiments.uncertainty.data import TASKS
from experiments.uncertainty.exploit import CAUTION, UNUSUAL, Weight, environments, played
from experiments.uncertainty.measure import Row, row
from worldmodel.control.controller import LatentPolicy
from worldmodel.control.planner_controller import PlannerController
from worldmodel.control.planners import CEM
from worldmodel.errors import UserError
from worldmodel.insight.caution import Caution
from worldmodel.training.calibrating import load_trust
from worldmodel.training.loading import load_run

MANNERS = ("plain", "unusual", "cautious")


def of_run(folder: Path, episodes: int, manners: tuple[str, ...], seed: int) -> tuple[str, list[Row]]:
    """The task of a run, and each manner's return, with its share of the plain one's.

    Raises:
        UserError: the run is none, its task is not the study's, or it has no calibration.
    """
    agent, data = load_run(folder, environments=1)
    data.close()
    if data.needed_task() not in TASKS:
        raise UserError(f"{folder} is of {data.task}, and the study knows {', '.join(TASKS)}")
    task, model, rows = TASKS[data.needed_task()], agent.world_model, []
    caution = Caution(load_trust(folder, agent, data.needed_task()))
    weights: dict[str, Weight] = {"plain": 0.0, "cautious": CAUTION, "unusual": caution.weight(UNUSUAL, True)}
    earned: dict[str, np.ndarray] = {}
    with environments(task, episodes) as envs:
        for manner in manners:
            search = CEM(horizon=10, uncertainty_weight=weights[manner], candidates=64, elites=8, iterations=3)
            policy = LatentPolicy(PlannerController(model, agent.actor_critic, agent.action, planner=search), False)
            found = played(task, model, policy, envs, seed, task.steps + 1)
            earned[manner] = found.reward.sum(0)
            print(manner, np.round(earned[manner]), flush=True)
            rows.append(row(manner, "run_planner", "real_return", None, earned[manner].mean()))
            rows.append(row(manner, "run_planner", "real_return_deviation", None, earned[manner].std(ddof=1)))
            if manner != "plain" and "plain" in earned:
                more, usual = earned[manner] - earned["plain"], earned["plain"].mean()  # an episode may earn nothing
                rows.append(row(manner, "run_planner", "share_of_plain", None, 1 + more.mean() / usual))
                error = more.std(ddof=1) / episodes**0.5 / usual
                rows.append(row(manner, "run_planner", "share_of_plain_error", None, error))
    return task.name, rows


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--episodes", type=int, default=6)
    words.add_argument("--manners", nargs="+", default=list(MANNERS), choices=MANNERS)
    given = words.parse_args()
    try:
        keep(given, "caution", *of_run(given.run, given.episodes, tuple(given.manners), given.seed))
    except UserError as error:
        words.exit(2, f"experiments.uncertainty.cost: {error}\n")


if __name__ == "__main__":
    main()
