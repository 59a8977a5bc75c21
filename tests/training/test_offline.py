"""Training from data alone: no environment is made, unless a task is given, which is but evaluated in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worldmodel as wm
from tests import tiny
from tests.experience.formats.writers import Known, v_d4rl
from tests.training.conftest import TINY, files
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.propagation import TS1
from worldmodel.experience import vector
from worldmodel.experience.environments import make_environment
from worldmodel.training import early
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run
from worldmodel.training.run_folder import RunFolder
from worldmodel.types import ActionSpec

TOY = "worldmodel.experience.toy:PointReach"


def recorded(episodes: int, seed: int = 0) -> list[Known]:
    """Episodes of the toy task at random."""
    env, rng, found = make_environment(TOY, size=16), np.random.default_rng(seed), []
    for number in range(episodes):
        images, actions, rewards = [env.reset(seed=number)[0]], [], []
        truncated = False
        while not truncated:
            actions.append(rng.uniform(-1, 1, 2).astype(np.float32))
            image, reward, _, truncated, _ = env.step(actions[-1])
            images.append(image)
            rewards.append(reward)
        shown = np.stack(images).transpose(0, 2, 3, 1)
        found.append(Known(shown, np.stack(actions), np.array(rewards, np.float32), False))
    return found


@pytest.fixture(scope="module")
def episodes() -> list[Known]:
    return recorded(6)


@pytest.fixture
def folder(tmp_path: Path, episodes: list[Known]) -> Path:
    """A run's folder that holds data, and is not trained."""
    v_d4rl(tmp_path / "data", episodes)
    run(["import", "v-d4rl", str(tmp_path / "data"), "--run", str(tmp_path / "run"), "--size", "16"])
    return tmp_path / "run"


def words(folder: Path, *more: str) -> list[str]:
    """The tiny configuration without its task."""
    short = ["--data.task", "null"] if "--data.task" not in more else []
    offline = ["--config", "data: {num_envs: null, task: null}"]
    return ["fit", "--config", str(TINY), *offline, "--run", str(folder), *short, *more]


@pytest.fixture
def no_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*_: Any, **__: Any) -> None:
        raise AssertionError("an environment was made")

    monkeypatch.setattr(vector.Environments, "__init__", made)


@pytest.mark.usefixtures("no_environments")
def test_it_learns_from_data_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(folder / "replay")
    more = ["--schedule.updates", "20", "--optimizer.learning_rate", "3e-3", "--optimizer.warmup", "10"]
    run(words(folder, *more, "--schedule.evaluate_every", "4"))
    said = capsys.readouterr().out
    assert "none, only data\n" in said and "198 records in 6 episodes of v-d4rl" in said
    assert "finished: not evaluated after 80 updates" in said and "export --run" in said
    assert files(folder / "replay") == before and not (folder / "evaluations.jsonl").exists()
    assert sorted(path.suffix for path in (folder / "videos").iterdir())[0] == ".mp4"
    rows = RunFolder(folder).read_metrics()
    assert rows[-1]["loss/reward"] < 0.6 * rows[0]["loss/reward"]
    agent, data = wm.load(folder)
    assert agent.action == ActionSpec(2, False, 1) and len(wm.open_replay(folder, data)) == 198
    with pytest.raises(wm.UserError, match="this run has no environment, only data"):
        data.held_out("report")


@pytest.mark.usefixtures("no_environments")
def test_it_resumes_to_the_last_digit(tmp_path: Path, folder: Path, episodes: list[Known]) -> None:
    v_d4rl(tmp_path / "data", episodes)
    run(["import", "v-d4rl", str(tmp_path / "data"), "--run", str(tmp_path / "calm"), "--size", "16"])
    run(words(tmp_path / "calm"))
    run(words(folder, "--schedule.rounds", "2"))
    run(["fit", "--run", str(folder), "--schedule.rounds", "4"])
    one, other = (load_checkpoint(path / "checkpoints/last.ckpt") for path in (tmp_path / "calm", folder))
    assert one["updates"] == other["updates"] == 16
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    tables = [[row["loss/total"] for row in RunFolder(x).read_metrics()] for x in (tmp_path / "calm", folder)]
    assert len(tables[0]) == 4 and tables[0] == tables[1]


def test_a_task_is_evaluated_in_and_not_collected_from(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(folder / "replay")
    run(words(folder, "--data.task", TOY))
    assert f"{TOY}, to evaluate in; nothing is collected" in capsys.readouterr().out
    rows = wm.evaluations(folder)
    assert [row["updates"] for row in rows] == [8, 16] and all(row["frames"] == 0 for row in rows)
    assert files(folder / "replay") == before and (folder / "checkpoints/best.ckpt").exists()
    run(["validate", "--run", str(folder)])
    assert "over 2 episodes" in capsys.readouterr().out
    _, data = wm.load(folder, environments=1)
    assert data.environments.num_envs == 1
    data.close()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--data.task", f"{TOY.replace('Point', 'DiscretePoint')}"],
            "takes one of 5 choices and shows (3, 16, 16), and",
        ),
        (["--data.task", "cartpole_balance"], "cartpole_balance takes 1 numbers"),
        (
            ["--data.size", "32", "--model.world_model.encoder.size", "32", "--model.world_model.decoder.size", "32"],
            "size",
        ),
        (["--data.num_envs", "2"], "without data.task there is nothing to collect from: --offline learns from"),
        (["--data.store_features", "true"], "data.store_features wants a frozen encoder"),
    ],
)
def test_what_does_not_go_together(complaint: Any, folder: Path, more: list[str], message: str) -> None:
    before = files(folder)
    assert message in complaint(words(folder, *more))
    assert files(folder) == before


def test_there_has_to_be_data(complaint: Any, tmp_path: Path) -> None:
    said = complaint(words(tmp_path / "run"))
    assert "holds no data to learn from: worldmodel import FORMAT PATH --run" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_environments")
def test_what_acts_in_an_environment_says_that_there_is_none(complaint: Any, folder: Path) -> None:
    run(words(folder, "--schedule.rounds", "1"))
    for command in ("report", "play", "validate", "imagine"):
        more = ["--out", str(folder / "x.mp4")] if command == "imagine" else []
        assert "this run has no environment, only data" in complaint([command, "--run", str(folder), *more]), command


@pytest.mark.parametrize(
    ("given", "data"),
    [
        (["--offline", "--run", "x"], {"task": None, "action_repeat": 1}),
        (["--offline", "--run", "x", "--data.task", "walker_walk"], {"task": "cartpole_balance"}),
        (["--task", "CartPole-v1", "--offline", "--run", "x"], {"task": "CartPole-v1"}),
        (["--task", "walker_walk", "--run", "x", "--offline"], {"task": "walker_walk"}),
        (["--offline", "--run", "x", "--config", str(TINY)], {"task": TOY}),
    ],
)
def test_the_switch(given: list[str], data: dict[str, Any]) -> None:
    expanded = early.expand(given)
    configs = [expanded[i + 1] for i, word in enumerate(expanded) if word == "--config"]
    held = early.merged(*configs)["data"]
    assert {name: held.get(name) for name in data} == data and "--offline" not in expanded
    assert expanded[expanded.index("--data.num_envs") + 1] == "null"  # over all files
    early.check("fit", expanded)


def test_the_switch_wants_a_run(complaint: Any) -> None:
    assert "say which run holds the data: worldmodel fit --offline --run runs/NAME" in complaint(["fit", "--offline"])
    assert "--offline takes no value" in complaint(["fit", "--offline", "yes", "--run", "x"])


def test_a_reward_that_nobody_knows_teaches_nothing() -> None:
    model, batch = tiny.world_model(), tiny.batch()
    control = ActorCritic(
        ActionSpec(tiny.ACTION, False), model.feature_size, ThroughModel(), TS1(), width=16, horizon=3
    )
    unknown = batch.reward.clone()
    unknown[0, 2], unknown[2] = torch.nan, torch.nan

    def losses(reward: torch.Tensor) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        seen = batch._replace(reward=reward)
        found, state, _ = model.loss(seen)
        return found | control.loss(model, state, seen)[0]

    whole, part = losses(batch.reward), losses(unknown)
    assert all(loss.isfinite().all() for loss in part.values())
    hidden = unknown.isnan()
    assert torch.equal(part["reward"][~hidden], whole["reward"][~hidden]) and not part["reward"][hidden].any()
    for name in whole.keys() - {"reward", "replay_critic"}:
        assert torch.equal(part[name], whole[name]), name
    # what was earned later than the gap says nothing of what was earned before it
    later = unknown.clone()
    later[0, 4] += 10
    assert torch.equal(losses(later)["replay_critic"][0, :2], part["replay_critic"][0, :2])
    assert torch.equal(part["replay_critic"][1], whole["replay_critic"][1])


def test_gradients_stay_finite_where_rewards_are_unknown() -> None:
    model, batch = tiny.world_model(), tiny.batch()
    found, _, _ = model.loss(batch._replace(reward=torch.full_like(batch.reward, torch.nan)))
    sum(loss.mean() for loss in found.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
