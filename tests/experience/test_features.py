"""Features of a frozen encoder, made once for each frame and stored with it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.frozen import FrozenConv
from worldmodel.errors import UserError
from worldmodel.experience.collector import Collector, RandomPolicy
from worldmodel.experience.replay import Features, Replay, record_dtype, stored_features
from worldmodel.experience.vector import InProcess
from worldmodel.types import Observation

TOY, SHAPE = "worldmodel.experience.toy:PointReach", (3, 16, 16)
OURS, THEIRS = Features((2, 3), "Ours-1"), Features((2, 3), "Theirs-2")


def replay(path: Path, features: Features | None = None) -> Replay:
    return Replay(path, image_shape=SHAPE, action_size=2, features=features)


def filled(path: Path, features: Features | None = None) -> Replay:
    """Three episodes of four records; a record's reward counts them all, and so do its features."""
    store = replay(path, features)
    for number in range(3):
        records = np.zeros(4, store.dtype)
        records["reward"] = 4 * number + np.arange(4)
        records["is_first"][0] = True
        if features:
            records["features"] = records["reward"][:, None, None] + np.arange(6).reshape(2, 3) / 8
        store.add_episode(records)
    return store


class Watching:
    """A policy whose actions hang on the features that it is given, and on its memory."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def initial(self, n: int) -> Tensor:
        return torch.zeros(n)

    def __call__(self, observation: Observation, state: Tensor) -> tuple[Tensor, Tensor]:
        assert observation.features is not None
        self.seen.append(observation)
        total = torch.where(observation.is_first, 0.0, state) + observation.features.flatten(1).mean(1)
        return torch.sin(torch.stack([total * 50, total * 70 + torch.rand(len(total))], 1)), total


def collector(path: Path, environments: int = 3) -> Collector:
    encoder = FrozenConv()
    features = Features((6, 4, 4), encoder.identity())
    return Collector(InProcess(TOY, environments, seed=5, size=16), replay(path, features), encoder.features)


def test_features_come_back_with_their_frames(tmp_path: Path) -> None:
    batch = filled(tmp_path, OURS).sample(8, 7)
    assert batch.features is not None
    assert (batch.features.shape, batch.features.dtype) == ((8, 7, 2, 3), torch.float32)
    assert torch.equal(batch.features, batch.reward[..., None, None] + torch.arange(6).view(2, 3) / 8)
    again = replay(tmp_path, OURS)
    assert (again.num_episodes, again.features) == (3, OURS)


def test_what_is_stored_is_said_before_the_first_episode(tmp_path: Path) -> None:
    assert stored_features(tmp_path) is None
    replay(tmp_path, OURS)
    assert json.loads((tmp_path / "features.json").read_text()) == {"shape": [2, 3], "identity": "Ours-1"}
    assert stored_features(tmp_path) == OURS
    assert [path.name for path in tmp_path.iterdir()] == ["features.json"]


@pytest.mark.parametrize(
    ("held", "asked", "message"),
    [
        (
            OURS,
            THEIRS,
            r"holds features \(2, 3\) of Ours-1, this run's encoder makes .* of Theirs-2: use another",
        ),
        (OURS, OURS._replace(shape=(6,)), r"holds features \(2, 3\) of Ours-1, this run's .* \(6,\) of Ours-1: use"),
        (OURS, None, "holds features of Ours-1: use another run folder, or set data.store_features to true"),
        (None, OURS, "holds no features: use another run folder, or set data.store_features to false"),
    ],
)
def test_features_of_another_are_refused(
    tmp_path: Path, held: Features | None, asked: Features | None, message: str
) -> None:
    filled(tmp_path, held)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=message) as caught:
        replay(tmp_path, asked)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert replay(tmp_path, held).num_episodes == 3


@pytest.mark.parametrize("held", [OURS, None])
@pytest.mark.parametrize("asked", [THEIRS, None])
def test_an_empty_folder_takes_any(tmp_path: Path, held: Features | None, asked: Features | None) -> None:
    replay(tmp_path, held)
    assert filled(tmp_path, asked).sample(1, 1).features is None or asked
    assert stored_features(tmp_path) == asked


@pytest.mark.parametrize("text", ["{", "[]", '{"shape": [2]}', '{"shape": 2, "identity": "x"}'])
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str) -> None:
    filled(tmp_path, OURS)
    (tmp_path / "features.json").write_text(text)
    with pytest.raises(UserError, match=r"features.json is damaged: restore it") as caught:
        replay(tmp_path, OURS)
    assert "\n" not in str(caught.value)


def test_every_frame_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrozenConv, "looks", [])
    collecting, policy = collector(tmp_path), Watching()
    collecting.collect(RandomPolicy(InProcess(TOY, 1, size=16).action), 5)
    collecting.collect(policy, 65)
    assert FrozenConv.looks == [3] * 70
    encoder = FrozenConv()
    for observation in policy.seen:  # what a policy is given is of the image beside it
        assert observation.features is not None
        assert torch.equal(observation.features, encoder.features(observation.image))
    episodes = [records for _, records in collecting._replay.episodes()]
    assert [len(records) for records in episodes] == [33] * 6 + [4] * 3
    for records in episodes:
        image, features = torch.from_numpy(records["image"].copy()), torch.from_numpy(records["features"].copy())
        assert torch.equal(features, encoder.features(image))


@pytest.mark.parametrize("saved_at", [40, 33])  # within an episode, and at the end of one
def test_resume_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved_at: int) -> None:
    torch.manual_seed(0)
    straight = collector(tmp_path / "straight")
    summaries = straight.collect(Watching(), 90)
    torch.manual_seed(0)
    before = collector(tmp_path / "resumed")
    first = before.collect(Watching(), saved_at)
    buffer = io.BytesIO()
    state = {"replay": before._replay.state_dict(), "collector": before.state_dict(), "rng": torch.get_rng_state()}
    torch.save(state, buffer)
    buffer.seek(0)
    saved: dict[str, Any] = torch.load(buffer, weights_only=True)
    after = collector(tmp_path / "resumed")
    monkeypatch.setattr(FrozenConv, "looks", [])
    after._replay.load_state_dict(saved["replay"])
    after.load_state_dict(saved["collector"])
    torch.set_rng_state(saved["rng"])
    assert first + after.collect(Watching(), 90 - saved_at) == summaries
    assert FrozenConv.looks == [3] * (90 - saved_at)
    for one in (straight, after):
        one._replay.flush()
    files = [{path.name: path.read_bytes() for path in (tmp_path / x).iterdir()} for x in ("straight", "resumed")]
    assert files[0] == files[1] and len(files[0]) == 1 + 3  # a stream for each environment


def test_a_look_and_a_replay_with_room_for_it_go_together(tmp_path: Path) -> None:
    environments, encoder = InProcess(TOY, 1, size=16), FrozenConv()
    with pytest.raises(ValueError, match="opened with them and a collector with a look"):
        Collector(environments, replay(tmp_path), encoder.features)
    with pytest.raises(ValueError, match="opened with them and a collector with a look"):
        Collector(environments, replay(tmp_path / "other", OURS))


def test_records_without_features_are_as_they_were() -> None:
    assert record_dtype(SHAPE, 2).itemsize == 3 * 16 * 16 + 4 * 2 + 4 + 2
    assert record_dtype(SHAPE, 2, (6, 4, 4)).itemsize == record_dtype(SHAPE, 2).itemsize + 4 * 96
