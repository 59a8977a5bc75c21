"""A tiny model learns a tiny pixel task through the real command line, in about a minute."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tests.training.conftest import CONFIGS
from worldmodel.experience.collector import RandomPolicy, run_episodes
from worldmodel.experience.vector import InProcess
from worldmodel.training.cli import run

TASK = "worldmodel.experience.toy:PointReach"
SETTINGS = Path(__file__).parent / "learning.yaml"


def random_return(episodes: int = 200) -> float:
    """Mean return of random actions."""
    torch.manual_seed(0)
    environments = InProcess(TASK, 4, seed=7, size=16)
    found = run_episodes(environments, RandomPolicy(environments.action), episodes)
    return sum(episode.return_ for episode in found) / len(found)


def test_the_toy_task_is_learned(tmp_path: Path) -> None:
    configs = [CONFIGS / "base.yaml", CONFIGS / "task/point_reach.yaml", SETTINGS]
    run(["fit", *(word for path in configs for word in ("--config", str(path))), "--run", str(tmp_path)])
    *_, last = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()]
    chance = random_return()
    assert 6 < chance < 9
    assert last["return_mean"] > 20  # of 32; standing in the centre from the start would earn nearly all of it
