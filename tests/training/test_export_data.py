"""``worldmodel export-data`` and back: what comes back is what was there, in the units that it had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experience.formats.test_formats import check, stored, write
from tests.experience.formats.writers import known
from tests.training.conftest import files
from worldmodel.experience.imported import read_imported
from worldmodel.experience.replay import Replay
from worldmodel.training.cli import run

pytest.importorskip("h5py")
SIZE = ["--size", "16"]


@pytest.mark.parametrize("form", ["minari", "hdf5"])
@pytest.mark.parametrize("rewards", [True, False])
def test_there_and_back(tmp_path: Path, form: str, rewards: bool) -> None:
    episodes = known(scale=3.0)
    path = write("v-d4rl", tmp_path / "data", episodes)
    if not rewards:
        for file in path.iterdir():
            np.savez(file, **(dict(np.load(file)) | {"reward": np.full(len(np.load(file)["action"]), np.nan)}))
    box = ["--low=-3", "--high=4"]
    run(["import", "v-d4rl", str(path), "--run", str(tmp_path / "run"), *SIZE, *box])
    before = files(tmp_path / "run")
    run(["export-data", "--run", str(tmp_path / "run"), "--format", form, "--out", str(tmp_path / "out")])
    assert files(tmp_path / "run") == before
    run(["import", form, str(tmp_path / "out"), "--run", str(tmp_path / "again"), *SIZE])
    one, other = (stored(tmp_path / name / "replay/rank_0") for name in ("run", "again"))
    assert len(one) == len(other) == 3
    for a, b in zip(one, other, strict=True):
        for name in ("image", "is_first", "is_terminal", "reward"):
            np.testing.assert_array_equal(a[name], b[name])
        np.testing.assert_allclose(a["action"], b["action"], atol=1e-6)
    first, second = (read_imported(tmp_path / name) for name in ("run", "again"))
    assert first is not None and second is not None and first.scale.low == second.scale.low == (-3, -3)
    assert first.rewards == second.rewards == (12 if rewards else 0)


@pytest.mark.parametrize("form", ["minari", "hdf5"])
def test_choices(tmp_path: Path, form: str) -> None:
    held = Replay(tmp_path / "run/replay/rank_0", image_shape=(3, 16, 16), action_size=3)
    records = np.zeros(5, held.dtype)
    records["is_first"][0] = True
    records["action"][1:] = np.eye(3)[[0, 2, 1, 1]]
    held.add_episode(records)
    run(["export-data", "--run", str(tmp_path / "run"), "--format", form, "--out", str(tmp_path / "out")])
    run(["import", form, str(tmp_path / "out"), "--run", str(tmp_path / "again"), *SIZE])
    again = read_imported(tmp_path / "again")
    assert again is not None and again.scale.discrete and again.scale.size == 3
    np.testing.assert_array_equal(stored(tmp_path / "again/replay/rank_0")[0]["action"], records["action"])


def test_minari_reads_it(tmp_path: Path) -> None:
    minari = pytest.importorskip("minari")
    episodes = known()
    write("replay", tmp_path / "run", episodes)
    run(["export-data", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    dataset = minari.MinariDataset(tmp_path / "out/data")
    assert dataset.total_episodes == 3 and dataset.total_steps == 12
    assert dataset.spec.observation_space.shape == (16, 16, 3)
    for found, episode in zip(dataset.iterate_episodes(), episodes, strict=True):
        np.testing.assert_array_equal(found.observations, episode.image)
        np.testing.assert_allclose(found.actions, episode.action)
        np.testing.assert_allclose(found.rewards, episode.reward)
        assert found.terminations[-1] == episode.terminated and found.truncations[-1] != episode.terminated


def test_what_a_run_has_collected(tmp_path: Path, finished: Path) -> None:
    run(["export-data", "--run", str(finished), "--format", "hdf5", "--out", str(tmp_path / "out/data.h5")])
    run(["import", "hdf5", str(tmp_path / "out"), "--run", str(tmp_path / "again"), *SIZE])
    assert sum(map(len, stored(tmp_path / "again/replay/rank_0"))) == sum(map(len, stored(finished / "replay/rank_0")))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--format", "zarr", "--out", "{out}"], "no format zarr to write: there are minari, hdf5"),
        (["--out", "{run}"], "is there already: name another"),
        (["--out", "{out}", "--run", "{empty}"], "holds no replay"),
    ],
)
def test_what_is_asked_wrongly(complaint: Any, tmp_path: Path, more: list[str], message: str) -> None:
    write("replay", tmp_path / "run", known())
    (tmp_path / "empty").mkdir()
    names = {"out": str(tmp_path / "out"), "run": str(tmp_path / "run"), "empty": str(tmp_path / "empty")}
    before = files(tmp_path)
    assert message in complaint(["export-data", "--run", names["run"], *(word.format(**names) for word in more)])
    assert files(tmp_path) == before


def test_a_failure_leaves_nothing(complaint: Any, tmp_path: Path) -> None:
    write("replay", tmp_path / "run", known())
    chunk = max((tmp_path / "run/replay/rank_0").iterdir())
    chunk.write_bytes(chunk.read_bytes()[:-200])
    before = files(tmp_path)
    assert "is damaged" in complaint(["export-data", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    assert files(tmp_path) == before
    check(stored(write("replay", tmp_path / "whole", known()) / "replay/rank_0"), known())
