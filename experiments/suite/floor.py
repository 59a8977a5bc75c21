"""``python -m experiments.suite.floor TASK OUT``: what acting at random earns, as JSON. The suite's jobs call it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from experiments.runs import settings
from worldmodel.experience.collector import RandomPolicy, run_episodes
from worldmodel.experience.vector import InProcess

EPISODES = 10


def main() -> None:
    task, out = sys.argv[1], Path(sys.argv[2])
    given = settings(task)
    torch.manual_seed(0)
    kept = {key: given[key] for key in ("size", "action_repeat") if key in given}
    environments = InProcess(given["task"], 1, 0, **kept)
    returns = np.array([x.return_ for x in run_episodes(environments, RandomPolicy(environments.action), EPISODES)])
    environments.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".tmp")
    temporary.write_text(json.dumps({"task": task, "random_mean": round(float(returns.mean()), 1)}))
    temporary.replace(out)


if __name__ == "__main__":
    main()
