"""What was explored gets another task's rewards; no training but of something tiny."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from experiments import zero_shot
from tests.training.conftest import TINY, words
from worldmodel.errors import UserError
from worldmodel.experience.formats.own_replay import OwnReplay
from worldmodel.experience.imported import read_imported
from worldmodel.experience.toy import PointReach
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


def test_the_jobs_and_the_page(explored: Path) -> None:
    given = argparse.Namespace(body=str(TINY), configs=[str(TINY)], explore=3, learn=2, seeds=[0], tasks=[RIGHT])
    job = zero_shot.explore(given, "random", 0, explored)
    assert job.command[6:9] == ("--config", str(TINY), "--config") and "policy/random" in job.command
    made = zero_shot.learn(given, "curious", RIGHT, 0, explored)
    assert f"--data.task={RIGHT}" in made.command and "--offline" in made.command
    assert read_imported(explored / f"curious_0_{RIGHT}_plain_0") is not None
    made.done.write_text('{"return_mean": 12.3}')
    assert zero_shot.page(given, explored).splitlines()[2].endswith("| 12 |")
