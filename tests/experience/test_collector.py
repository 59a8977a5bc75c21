from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from worldmodel.experience.collector import Collector, RandomPolicy, run_episodes
from worldmodel.experience.replay import Replay
from worldmodel.experience.vector import Environments, InProcess, Workers
from worldmodel.types import ActionSpec, Observation

TOY = "worldmodel.experience.toy:PointReach"


class Memory(NamedTuple):
    total: Tensor
    extra: tuple[Tensor, None]


class Remembering:
    """A policy whose actions depend on all that it has seen in the episode."""

    def initial(self, n: int) -> Memory:
        return Memory(torch.zeros(n), (torch.zeros(n, 2), None))

    def __call__(self, observation: Observation, state: Memory) -> tuple[Tensor, Memory]:
        kept = torch.where(observation.is_first, 0.0, state.total)
        total = kept + observation.image.float().mean((1, 2, 3)) / 255
        action = torch.sin(torch.stack([total * 50, total * 70 + torch.rand(len(total))], 1))
        return action, Memory(total, (action, None))


def make(path: Path, environments: Environments) -> Collector:
    replay = Replay(path, image_shape=environments.image_shape, action_size=environments.action.size, chunk=16)
    return Collector(environments, replay)


def files(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


@pytest.mark.parametrize(
    ("task", "repeat", "steps", "saved_at", "stored"), [(TOY, 1, 300, 130, 57), ("reacher_easy", 25, 90, 50, 18)]
)
def test_resume_is_exact(tmp_path: Path, task: str, repeat: int, steps: int, saved_at: int, stored: int) -> None:
    def environments() -> Environments:
        return InProcess(task, 3, seed=5, size=16, action_repeat=repeat)

    policy = Remembering()
    torch.manual_seed(0)
    straight = make(tmp_path / "straight", environments())
    summaries = straight.collect(policy, steps)

    torch.manual_seed(0)
    before = make(tmp_path / "resumed", environments())
    first = before.collect(policy, saved_at)
    buffer = io.BytesIO()
    state = {"replay": before._replay.state_dict(), "collector": before.state_dict(), "rng": torch.get_rng_state()}
    torch.save(state, buffer)
    before.collect(policy, 5)  # lost
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    torch.manual_seed(1)
    after = make(tmp_path / "resumed", environments())
    after._replay.load_state_dict(saved["replay"])
    after.load_state_dict(saved["collector"])
    torch.set_rng_state(saved["rng"])
    assert first + after.collect(Remembering(), steps - saved_at) == summaries
    for collector in (straight, after):
        collector._replay.flush()
    assert files(tmp_path / "resumed") == files(tmp_path / "straight")
    assert len(files(tmp_path / "straight")) == stored
    assert (after.frames, after.steps, after.episodes) == (
        straight.frames,
        straight.steps,
        straight.episodes,
    )
    torch.manual_seed(2)
    straight.collect(policy, 1)
    torch.manual_seed(2)
    after.collect(policy, 1)
    for name, tensor in straight.state_dict()["step"].items():
        assert torch.equal(tensor, after.state_dict()["step"][name])


def test_records_are_aligned(tmp_path: Path) -> None:
    environments = InProcess(TOY, 1, size=16)
    collector = make(tmp_path, environments)
    (summary,) = collector.collect(RandomPolicy(environments.action), 40)
    assert (summary.steps, summary.frames, summary.is_cut) == (32, 32, False)
    assert collector.frames == 39 - 1
    (_, records), (_, unfinished) = collector._replay.episodes()
    assert len(unfinished) == 40 - 33
    assert records["is_first"].tolist() == [True] + [False] * 32
    assert not records["is_terminal"].any()
    assert (records["action"][0] == 0).all()
    assert records["reward"].sum() == pytest.approx(summary.return_)
    again = InProcess(TOY, 1, size=16)
    for record in records:  # action[t] led to image[t] and reward[t]
        step = again.step(record["action"][None])
        np.testing.assert_array_equal(step.image[0], record["image"])
        assert step.reward[0] == record["reward"]


def test_another_policy_starts_afresh(tmp_path: Path) -> None:
    environments = InProcess(TOY, 2, size=16)
    collector = make(tmp_path, environments)
    starts: list[int] = []

    class Counting(Remembering):
        def initial(self, n: int) -> Memory:
            starts.append(n)
            return super().initial(n)

    collector.collect(RandomPolicy(environments.action), 10)
    collector.collect(Counting(), 10)
    collector.collect(Counting(), 10)  # the same kind: its memory lasts
    assert starts == [2]
    collector.collect(RandomPolicy(environments.action), 10)
    collector.collect(Counting(), 10)
    assert starts == [2, 2]


def test_a_cut_episode_is_kept(tmp_path: Path) -> None:
    environments = Workers(TOY, 1, size=16)
    collector = make(tmp_path, environments)
    policy = RandomPolicy(environments.action)
    collector.collect(policy, 10)
    os.kill(environments.pids()[0], signal.SIGKILL)
    with pytest.warns(UserWarning, match="cut"):
        (summary,) = collector.collect(policy, 3)
    assert (summary.steps, summary.is_cut) == (9, True)
    (_, cut), (_, following) = collector._replay.episodes()
    assert (len(cut), len(following)) == (10, 2)  # what was seen, as of an episode that a time limit ends
    assert not cut["is_terminal"].any() and following["is_first"].tolist() == [True, False]
    assert cut["reward"].sum() == pytest.approx(summary.return_)
    environments.close()


def test_random_policy_discrete() -> None:
    policy = RandomPolicy(ActionSpec(5, discrete=True))
    observation = Observation(torch.zeros(64, 3, 8, 8, dtype=torch.uint8), torch.zeros(64, dtype=torch.bool))
    action, state = policy(observation, policy.initial(64))
    assert state is None
    assert action.sum(1).eq(1).all()
    assert action.sum(0).gt(0).all()


@pytest.mark.parametrize("count", [1, 5])
def test_run_episodes(count: int) -> None:
    environments = InProcess(TOY, 3, size=16)
    policy = Remembering()
    torch.manual_seed(0)
    episodes = run_episodes(environments, policy, count, record_video=True)
    assert len(episodes) == count
    assert episodes[0].video is not None
    assert episodes[0].video.shape == (33, 16, 16, 3)
    assert all(episode.video is None for episode in episodes[1:])
    assert {(episode.steps, episode.frames) for episode in episodes} == {(32, 32)}
    torch.manual_seed(0)
    again = run_episodes(environments, policy, count)
    assert [episode.return_ for episode in again] == [episode.return_ for episode in episodes]
