"""Every shipped config goes through the real command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.training.conftest import CONFIGS, TINY, files
from worldmodel.experience import suite
from worldmodel.model.distributions import CategoricalLatents
from worldmodel.training import fit as fit_command
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run
from worldmodel.training.schedule import Schedule
from worldmodel.training.world import World

BASE = CONFIGS / "base.yaml"
SHORT = """
fabric: {accelerator: cpu}
schedule: {rounds: 1, prefill: 20, steps: 2, updates: 2, evaluate_every: 1, evaluation_episodes: 1}
data: {num_envs: 2, batch: 2, length: 6, workers: false}
model: {actor_critic: {init_args: {starts: 8, horizon: 3}}}
"""
NEAR = "model: {evaluate_with: &who {init_args: {every: 2, planner: {init_args: {horizon: 2}}}}, collect_with: *who}"
DRIVERS = {  # the files of configs/policy, and what their evaluations are recorded under
    "actor": "actor",
    "cautious": "actor",
    "curious": "actor",
    "dyna": "actor",
    "cem": "cem+actor+value",
    "cloning": "actor",
    "gradient": "gradient+actor+value",
    "icem": "icem+actor+value",
    "ilqr": "ilqr+actor+value",
    "imitate": "actor",
    "mppi": "mppi+actor+value",
    "planet": "cem",
    "pessimistic": "actor",
    "policy_gradient": "actor",
    "random": "random",
    "random_shooting": "random_shooting+actor+value",
    "through_model": "actor",
}
GAUSSIAN = """
model: {world_model: {init_args: {latents: {
  class_path: worldmodel.model.distributions.GaussianLatents, init_args: {size: 8}}}}}
"""


def fit(folder: Path, configs: list[Path], *more: str) -> None:
    given = [word for config in configs for word in ("--config", str(config))]
    run(["fit", *given, "--run", str(folder / "run"), *more])


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def shipped(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((CONFIGS / folder).glob("*.yaml"))]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[World, Schedule]]:
    """What commands came to, instead of training."""
    made: list[tuple[World, Schedule]] = []
    monkeypatch.setattr(fit_command, "train", lambda world, schedule, run: made.append((world, schedule)))
    return made


COMBINATIONS = [
    *(
        [BASE, path] for path in shipped("representation", "transition", "policy", "size")
    ),  # for encoders see test_encoder_configs.py
    [BASE, CONFIGS / "size/12m.yaml", CONFIGS / "task/walker_walk.yaml"],
    [BASE, CONFIGS / "size/12m.yaml", CONFIGS / "task/cart_pole_v1.yaml"],
    [BASE, CONFIGS / "task/cartpole_swingup.yaml", CONFIGS / "encoder/conv.yaml", CONFIGS / "transition/single.yaml"],
    [BASE, CONFIGS / "task/point_reach.yaml", CONFIGS / "policy/policy_gradient.yaml"],
]


@pytest.mark.parametrize("configs", COMBINATIONS, ids=lambda configs: "+".join(path.stem for path in configs))
def test_combinations_are_built(tmp_path: Path, built: list[tuple[World, Schedule]], configs: list[Path]) -> None:
    fit(tmp_path, configs, "--data.workers", "false", "--data.num_envs", "1")
    ((world, _),) = built
    assert world.agent.action == world.data.action
    assert (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("path", shipped("task"), ids=lambda path: path.stem)
def test_tasks_are_built(tmp_path: Path, built: list[tuple[World, Schedule]], path: Path) -> None:
    fit(tmp_path, [BASE, path], "--data.num_envs", "1")
    ((world, _),) = built
    assert world.agent.action.size > 0


def test_the_vision_suite_is_complete() -> None:
    tasks = [yaml.safe_load(path.read_text())["data"]["task"] for path in shipped("task")]
    assert len([task for task in tasks if task in suite.suite_tasks()]) == 20


def test_12m_has_twelve_million_parameters(tmp_path: Path, built: list[tuple[World, Schedule]]) -> None:
    fit(tmp_path, [BASE, CONFIGS / "size/12m.yaml"], "--data.workers", "false", "--data.num_envs", "1")
    ((world, schedule),) = built
    agent, data = world.agent, world.data
    assert 11.5e6 < sum(p.numel() for p in agent.parameters()) < 12.5e6
    latents = agent.world_model.latents
    assert isinstance(latents, CategoricalLatents) and (latents.groups, latents.classes) == (32, 16)
    # DreamerV3's train ratio: replayed steps for each step of an environment
    assert schedule.updates * data.batch * data.length / (schedule.steps * 16) == 256


RUNS = {
    "base": [BASE],
    "12m": [BASE, CONFIGS / "size/12m.yaml"],
    "gymnasium": [BASE, CONFIGS / "task/cart_pole_v1.yaml"],
    "conv+single": [BASE, CONFIGS / "encoder/conv.yaml", CONFIGS / "transition/single.yaml"],
}


@pytest.mark.parametrize("name", RUNS)
def test_shipped_configs_train(tmp_path: Path, name: str) -> None:
    fit(tmp_path, [*RUNS[name], written(tmp_path, "short", SHORT)], "--data.action_repeat", "50")
    check(tmp_path / "run")


@pytest.mark.parametrize(
    "task", ["worldmodel.experience.toy:PointReach", "worldmodel.experience.toy:DiscretePointReach"]
)
@pytest.mark.parametrize("policy", ["through_model", "policy_gradient"])
@pytest.mark.parametrize("latents", ["", GAUSSIAN], ids=["categorical", "gaussian"])
def test_kinds_train(tmp_path: Path, task: str, policy: str, latents: str) -> None:
    configs = [BASE, TINY, CONFIGS / f"policy/{policy}.yaml", written(tmp_path, "short", SHORT)]
    fit(tmp_path, [*configs, *([written(tmp_path, "latents", latents)] if latents else [])], "--data.task", task)
    check(tmp_path / "run")


def test_every_policy_is_expected() -> None:
    assert {path.stem for path in shipped("policy")} == set(DRIVERS)


@pytest.mark.parametrize("name", sorted(set(DRIVERS) - {"policy_gradient", "through_model"}))  # of which see above
def test_policies_train(tmp_path: Path, name: str) -> None:
    fit(tmp_path, [BASE, TINY, written(tmp_path, "short", SHORT), *policy(tmp_path, CONFIGS / f"policy/{name}.yaml")])
    check(tmp_path / "run", DRIVERS[name])


@pytest.mark.parametrize(
    "name", sorted(set(DRIVERS) - {"curious", "dyna", "imitate", "planet", "policy_gradient", "through_model"})
)
def test_any_checkpoint_is_driven_by_any_policy(finished: Path, tmp_path: Path, name: str) -> None:
    before = files(finished)
    given = [word for path in policy(tmp_path, CONFIGS / f"policy/{name}.yaml") for word in ("--policy", str(path))]
    run(["validate", "--run", str(finished), *given, "--schedule.evaluation_episodes", "1"])
    (row,) = [json.loads(line) for line in (finished / "validations.jsonl").read_text().splitlines()]
    assert row["policy"] == DRIVERS[name] and len(row["returns"]) == 1
    after = files(finished)
    changed = {path for path in after if after[path] != before.get(path)}
    assert changed == {"validations.jsonl", f"videos/episode_{row['updates']:07d}_{row['policy']}.mp4"}


def test_a_run_goes_on_as_before_after_other_policies_were_tried(finished: Path) -> None:
    run(["validate", "--run", str(finished), f"--policy={CONFIGS / 'policy/random.yaml'}"])
    run(["fit", "--run", str(finished), "--schedule.rounds", "6"])
    rows = [json.loads(line) for line in (finished / "evaluations.jsonl").read_text().splitlines()]
    assert [(row["updates"], row["policy"]) for row in rows] == [(8, "actor"), (16, "actor"), (24, "actor")]
    assert len((finished / "validations.jsonl").read_text().splitlines()) == 1
    best = load_checkpoint(finished / "checkpoints/last.ckpt")["progress"]["best"]
    # the table rounds
    assert best == pytest.approx(max(row["return_mean"] for row in rows), abs=1e-3)


def policy(folder: Path, path: Path) -> list[Path]:
    """A policy's file, and what makes it quick."""
    return [path, written(folder, "near", NEAR)] if "PlannerController" in path.read_text() else [path]


def check(folder: Path, driver: str = "actor") -> None:
    """All of a run is there."""
    (row,) = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    assert row["updates"] == 2 and len(row["returns"]) == 1 and row["frames"] > 0 and row["policy"] == driver
    for name in ("config.yaml", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        assert (folder / name).stat().st_size > 0
    for name in ("episode_0000002.mp4", "open_loop_0000002.png", "open_loop_0000002.mp4"):
        assert (folder / "videos" / name).stat().st_size > 0
    assert list((folder / "replay" / "rank_0").glob("*.npz"))
