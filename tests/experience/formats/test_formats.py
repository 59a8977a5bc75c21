"""Every format, read from files of its layout: images, actions, rewards and ends are where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.experience.formats import writers
from tests.experience.formats.writers import Known, known
from worldmodel.experience.formats import open_format
from worldmodel.experience.imported import import_episodes
from worldmodel.experience.records import stored_shapes
from worldmodel.experience.replay import Replay

WRITERS = {
    "v-d4rl": writers.v_d4rl, "v-d4rl-hdf5": writers.v_d4rl_hdf5, "hdf5": writers.hdf5, "minari": writers.minari,
    "lerobot": writers.lerobot, "videos": writers.videos, "replay": writers.replay,
}  # fmt: skip
FILM = 6  # what a film changes of a colour
CHANGED = {"lerobot": FILM, "videos": FILM}


def stored(directory: Path) -> list[np.ndarray]:
    """Records of a replay's episodes, read anew."""
    shape, size = stored_shapes(directory)
    return [records for _, records in Replay(directory, image_shape=shape, action_size=size).episodes()]


def check(found: list[np.ndarray], episodes: list[Known], action: float = 1.0, tolerance: int = 0) -> None:
    """Records hold these episodes, their actions divided by ``action``."""
    assert len(found) == len(episodes)
    for records, episode in zip(found, episodes, strict=True):
        image = records["image"].transpose(0, 2, 3, 1).astype(int)
        assert np.abs(image - episode.image).max() <= tolerance
        np.testing.assert_allclose(records["action"][1:], episode.action / action, atol=1e-6)
        assert not records["action"][0].any() and records["reward"][0] == 0
        np.testing.assert_array_equal(records["reward"][1:], episode.reward)
        ends = np.zeros(episode.steps + 1, bool)
        ends[-1] = episode.terminated
        np.testing.assert_array_equal(records["is_terminal"], ends)
        np.testing.assert_array_equal(records["is_first"], np.arange(episode.steps + 1) == 0)


NEEDS = {"v-d4rl-hdf5": "h5py", "hdf5": "h5py", "minari": "h5py", "lerobot": "pyarrow"}


def write(name: str, path: Path, episodes: list[Known]) -> Path:
    """Files of a format; skips the test where what it takes is not installed."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    return WRITERS[name](path, episodes)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_read_is_what_was_written(tmp_path: Path, name: str) -> None:
    episodes = known()
    source = open_format(name, write(name, tmp_path / "data", episodes))
    assert len(source) == len(episodes)
    found = import_episodes(source, tmp_path / "replay", writers.SIZE)
    if name == "lerobot":  # the last image is not in it: the one before stands for it
        episodes = [e._replace(image=np.concatenate([e.image[:-1], e.image[-2:-1]])) for e in episodes]
    check(stored(tmp_path / "replay"), episodes, tolerance=CHANGED.get(name, 0))
    assert (found.episodes, found.records, found.rewards, found.terminated) == (3, 15, 12, 1)
    assert found.scale.low == (-1, -1) and found.scale.high == (1, 1) and not found.scale.discrete
