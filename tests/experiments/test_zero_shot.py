"""What was explored gets another task's rewards; no training but of something tiny."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from experiments import offline, runner, zero_shot
from tests.training.conftest import TINY, words
from worldmodel.errors import UserError
from worldmodel.experience.formats.own_replay import OwnReplay
from worldmodel.experience.imported import read_imported
from worldmodel.experience.toy import PointReach
from worldmodel.training import early
from worldmodel.training.cli import run
from worldmodel.training.loading import load_run

RIGHT = "tests.experiments.test_zero_shot:Right"


class Right(PointReach):
    """The same square; reward rises to the right."""

    def _reward(self) -> float:
        return float(self._point[0])


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero_shot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["worldmodel"])
        run(words(folder / "curious_0", *zero_shot.WAYS["curious"], "--schedule.rounds", "3"))
    return folder


def test_its_model_expects_no_reward(explored: Path) -> None:
    """The head has not moved from zero, and uncertainty alone is what the actor sought."""
    agent, data = load_run(explored / "curious_0")
    data.close()
    assert not any(x.any() for x in agent.world_model.reward.net[-1].parameters())
    assert agent.actor_critic is not None and agent.actor_critic.uncertainty_weight.counts


def test_another_task_rewards_the_same_episodes(explored: Path) -> None:
    run = explored / "curious_0"
    whole = [r for replay in OwnReplay(run).replays for _, r in replay.episodes(ended=True)]
    same = list(zero_shot.rewarded(run, "worldmodel.experience.toy:PointReach"))
    other = list(zero_shot.rewarded(run, RIGHT))
    assert len(whole) >= 4 and len(same) == len(other) == len(whole) // 2 * 2
    for before, again, right in zip(whole, same, other, strict=False):
        assert np.array_equal(before["reward"], again["reward"])
        assert np.array_equal(before["image"], right["image"]) and np.array_equal(before["action"], right["action"])
        x = (right["image"][:, 0, :, :].sum(1) @ np.arange(16)) / right["image"][:, 0].sum((1, 2)) - 7.5
        assert np.allclose(right["reward"][1:], x[1:] / 6, atol=0.03)


def test_another_body_is_refused(explored: Path) -> None:
    with pytest.raises(UserError, match=r"PointAside shows other images .* same body and start"):
        list(zero_shot.rewarded(explored / "curious_0", "worldmodel.experience.toy:PointAside"))


def test_the_jobs_and_the_page(explored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model first, with the task's rewards; then an actor in it, frozen."""
    parser = argparse.ArgumentParser()
    offline.options(parser, variants=("plain",), seeds=(0,))
    given = parser.parse_args(["--config", str(TINY), "--rounds", "2"])
    given.body, given.explore, given.tasks, given.ways = str(TINY), 3, [RIGHT], ["curious"]
    job = zero_shot.explore(given, "random", 0, explored)
    assert job.command[6:9] == ("--config", str(TINY), "--config") and "policy/random" in job.command
    started: list[runner.Job] = []

    def begin(jobs: list[runner.Job], address: str | None) -> list[str]:
        started.extend(jobs)
        return []

    monkeypatch.setattr(runner, "run_jobs", begin)
    assert zero_shot.learn(given, explored) == []
    model, actor = started
    assert "policy/random" in model.command and "--schedule.rounds=150" in model.command
    assert f"--pretrained={explored / f'curious_0_{RIGHT}_model_0'}" in actor.command
    for made in started:
        assert f"--data.task={RIGHT}" in made.command and "--offline" in made.command
        assert read_imported(Path(made.command[2])) is not None
    assert model.done != actor.done and model.log != actor.log
    actor.done.write_text('{"return_mean": 12.3}')
    assert zero_shot.page(given, explored).splitlines()[2].endswith("| 12 |")
    given.variants = ["unusual"]
    monkeypatch.setattr(offline, "prepare", lambda *_: None)  # the same data once more
    assert zero_shot.learn(given, explored) == []
    model, actor = started[2:]
    early.check("fit", early.expand([*actor.command[5:]]))
    assert any(str(Path(model.command[2]) / "calibration.json") in word for word in actor.command)
    given.model_rounds = 0
    with pytest.raises(UserError, match="not with --model-rounds 0"):
        zero_shot.learn(given, explored)
