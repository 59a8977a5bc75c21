"""Numbers beside a picture: a task that cannot be understood without them, from the spaces to a driven dream."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import repeat

import worldmodel as wm
from tests import tiny
from tests.training.conftest import words
from worldmodel.errors import UserError
from worldmodel.experience.replay import Replay
from worldmodel.model.distributions import GaussianLatents
from worldmodel.training.cli import run


def trained(folder: Path, task: str, *more: str) -> Path:
    run(words(folder, "--data.task", f"tests.hidden_goal:{task}", *more))
    return folder


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["worldmodel"])
        return trained(tmp_path_factory.mktemp("vector") / "seeing", "HiddenGoal")


def test_rewards_that_only_the_numbers_explain_are_learned() -> None:
    losses = {}
    for size in (0, 3):
        model = tiny.world_model(GaussianLatents(8))
        if size:
            model.take_vector(size)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for update in range(150):
            batch = tiny.batch(sequences=16, length=4, seed=update)
            goal = batch.reward[:, :1].sign().expand(16, 4)
            beside = repeat(3 * goal, "b t -> b t v", v=3) if size else None
            found, _, _ = model.loss(batch._replace(reward=goal, vector=beside))
            learned = [loss.mean() for name, loss in found.items() if name != "reconstruction"]  # of noise
            optimizer.zero_grad()
            torch.stack(learned).sum().backward()
            optimizer.step()
        assert ("vector" in found) == bool(size)
        losses[size] = found["reward"].detach().mean()
    assert losses[3] < 0.7 * losses[0], losses


def test_what_is_stored_is_what_was_shown(seeing: Path) -> None:
    _, data = wm.load(seeing, trust_code=True)
    data.close()
    assert data.vector_size == 3
    goals = set()
    for _, records in wm.open_replay(seeing, data).episodes():
        assert len(np.unique(records["vector"][:, 0])) == 1 and not records["vector"][:, 1].any()
        goals.add(float(records["vector"][0, 0]))
    assert goals == {-1.0, 1.0}


def test_it_acts_and_dreams(seeing: Path) -> None:
    agent, data = wm.load(seeing, trust_code=True)
    env = wm.make_env(data.task, **data.settings)
    act = wm.SinglePolicy(agent.controller(explore=False))
    seen, _ = env.reset(seed=0)
    for step in range(3):
        seen, *_ = env.step(act(seen, step == 0))
    batch = wm.open_replay(seeing, data).sample(batch=2, length=8)
    data.close()
    assert batch.vector is not None and batch.vector.shape == (2, 8, 3)
    other = batch._replace(vector=-batch.vector)
    found = [agent.world_model.observe(x, mode=True).state.stoch for x in (batch, other)]
    assert not torch.equal(*found)
    with pytest.raises(ValueError, match="takes a vector of 3 numbers, got none"):
        agent.world_model.observe(batch._replace(vector=None))
    dreams = wm.DreamVectorEnv.from_run(seeing, num_envs=2, horizon=3, trust_code=True)
    dreams.reset(seed=0)
    assert dreams.step(dreams.action_space.sample())[1].shape == (2,)


def test_the_commands_know_them(seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trust = ["--trust-code"]
    run(["validate", "--run", str(seeing), *trust])
    run(["imagine", "--run", str(seeing), "--out", str(tmp_path / "dream.png"), "--horizon", "4", *trust])
    run(["export", "--run", str(seeing), "--program", str(tmp_path / "actor.pt2"), *trust])
    assert (tmp_path / "dream.png").exists() and (tmp_path / "actor.pt2").exists()
    assert "return" in capsys.readouterr().out


def test_a_replay_of_other_numbers_is_refused(tmp_path: Path) -> None:
    records = np.zeros(3, Replay(tmp_path / "a", image_shape=(3, 4, 4), action_size=1, vector_size=2).dtype)
    replay = Replay(tmp_path / "b", image_shape=(3, 4, 4), action_size=1, vector_size=2)
    records["is_first"][0] = True
    replay.add_episode(records)
    with pytest.raises(UserError, match="holds vectors of 2 numbers beside its images, and no vectors are asked for"):
        Replay(tmp_path / "b", image_shape=(3, 4, 4), action_size=1)
