"""A run in a program's hands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from tests.training.conftest import files
from worldmodel.control.controller import ActorController
from worldmodel.errors import UserError
from worldmodel.experience.collector import run_episodes
from worldmodel.model.transitions import SharedTrunk
from worldmodel.training.average import mean_weights
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.data import open_replay
from worldmodel.training.loading import load_run


def test_a_run_is_loaded_and_left_alone(finished: Path) -> None:
    before = files(finished)
    agent, data = load_run(finished, finished / "checkpoints/last.ckpt", environments=1)
    saved = mean_weights(load_checkpoint(finished / "checkpoints/last.ckpt"))
    assert all(torch.equal(value, saved[name]) for name, value in agent.state_dict().items())
    assert not any(module.training for module in agent.modules())
    *_, last = [json.loads(line) for line in (finished / "evaluations.jsonl").read_text().splitlines()]
    assert (agent.updates, data.frames) == (last["updates"], last["frames"])
    assert data.environments.num_envs == 1 and data.task == "worldmodel.experience.toy:PointReach"
    assert isinstance(agent.world_model.rssm.transition, SharedTrunk)
    assert agent.world_model.rssm.transition.members == 3  # as the run's configuration says, not by default
    data.close()
    assert files(finished) == before


def test_what_is_loaded_acts_as_the_run_did(finished: Path) -> None:
    agent, data = load_run(finished, finished / "checkpoints/last.ckpt")
    policy = agent.policy(explore=False)
    assert isinstance(policy.controller, ActorController)
    returns = [round(episode.return_, 3) for episode in run_episodes(data.held_out("evaluation"), policy, 2)]
    data.close()
    *_, last = [json.loads(line) for line in (finished / "evaluations.jsonl").read_text().splitlines()]
    assert returns == last["returns"]


def test_the_best_is_loaded_or_else_the_last(finished: Path) -> None:
    best = finished / "checkpoints" / "best.ckpt"
    updates = load_checkpoint(best)["updates"]
    for expected in (updates, 16):
        agent, data = load_run(finished)
        data.close()
        assert agent.updates == expected
        best.unlink(missing_ok=True)


def test_a_replay_is_read(finished: Path) -> None:
    _, data = load_run(finished)
    data.close()
    before = files(finished / "replay")
    unlimited = len(open_replay(finished, data))
    data.capacity = 50  # fewer than there are
    replay = open_replay(finished, data)
    assert 0 < len(replay) <= 50 < unlimited
    assert replay.sample(2, 5).image.shape == (2, 5, 3, 16, 16)
    assert files(finished / "replay") == before


def test_complaints(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="there is no checkpoint"):
        load_run(finished, tmp_path / "no.ckpt")
    config = yaml.safe_load((finished / "config.yaml").read_text())
    transition = config["model"]["world_model"]["init_args"]["transition"]["init_args"]
    for members, message in (
        (0, "members: it is 0 and must be at least 1 and at most 1024"),
        (2, r"heads.weight is \(48, 16\), not \(32,"),
    ):
        transition["members"] = members
        (finished / "config.yaml").write_text(yaml.safe_dump(config))
        with pytest.raises(UserError, match=message):
            load_run(finished)
    config["model"]["evaluate_with"] = "worldmodel.control.controller.ActrController"
    (finished / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="has no ActrController: did you mean ActorController"):
        load_run(finished)
