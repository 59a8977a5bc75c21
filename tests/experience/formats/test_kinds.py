"""What data of others may leave out or have otherwise: rewards, boxes, choices, compressed pictures, last images."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from tests.experience.formats import writers
from tests.experience.formats.test_formats import FILM, check, stored, write
from tests.experience.formats.writers import ACTIONS, SIZE, Known, known
from worldmodel.experience.action_scale import ActionScale, measured
from worldmodel.experience.formats import open_format
from worldmodel.experience.imported import Imported, import_episodes


def brought(name: str, path: Path, tmp_path: Path, size: int = SIZE) -> tuple[Imported, list[np.ndarray]]:
    found = import_episodes(open_format(name, path), tmp_path / "replay", size)
    return found, stored(tmp_path / "replay")


def _grey(episodes: list[Known]) -> list[Known]:
    """JPEG changes colours more than brightness."""
    return [e._replace(image=e.image[..., :1].repeat(3, -1)) for e in episodes]


def test_minaris_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by minari itself: pictures are JPEG files by its default."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    minari = pytest.importorskip("minari")
    episodes = _grey(known(size=32, scale=2.0))
    buffers = [
        minari.data_collector.EpisodeBuffer(
            observations=e.image,
            actions=e.action,
            rewards=e.reward.tolist(),
            terminations=[e.terminated and t == e.steps - 1 for t in range(e.steps)],
            truncations=[not e.terminated and t == e.steps - 1 for t in range(e.steps)],
        )
        for e in episodes
    ]
    given = {"observation_space": spaces.Box(0, 255, (32, 32, 3), np.uint8)}
    given["action_space"] = spaces.Box(-2, 2, (ACTIONS,), np.float32)
    minari.create_dataset_from_buffers("ours/test-v0", buffers, **given)
    found, records = brought("minari", tmp_path / "sets/ours/test-v0", tmp_path, size=32)
    check(records, episodes, action=2.0, tolerance=8)
    assert found.scale == ActionScale.box([-2, -2], [2, 2], "file") and found.terminated == 1


def _jpeg(image: np.ndarray) -> np.ndarray:
    held = io.BytesIO()
    Image.fromarray(image).save(held, format="JPEG", quality=95)
    return np.frombuffer(held.getvalue(), np.uint8)


def test_pictures_as_jpeg_files_and_choices(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    episodes = _grey(known())
    path = write("minari", tmp_path / "data", episodes)
    choices = [np.arange(e.steps) % 3 + 1 for e in episodes]
    with h5py.File(path / "data/main_data.hdf5", "a") as file:
        for number, episode in enumerate(episodes):
            group = file[f"episode_{number}"]
            del group["observations"], group["actions"]
            rows = group.create_dataset("observations", episode.steps + 1, dtype=h5py.vlen_dtype(np.uint8))
            for t, image in enumerate(episode.image):
                rows[t] = _jpeg(image)
            group["actions"] = choices[number]
    space = {"type": "Discrete", "dtype": "int64", "start": 1, "n": 4}
    (path / "data/metadata.json").write_text(json.dumps({"action_space": json.dumps(space)}))
    found, records = brought("minari", path, tmp_path)
    assert found.scale == ActionScale.choices(4, 1, "file")
    for r, e, chosen in zip(records, episodes, choices, strict=True):
        assert np.abs(r["image"].transpose(0, 2, 3, 1).astype(int) - e.image).max() <= 8
        np.testing.assert_array_equal(r["action"][1:].argmax(1) + 1, chosen)
        assert (r["action"][1:].sum(1) == 1).all() and not r["action"][0].any()
        np.testing.assert_array_equal(found.scale.original(r["action"][1:]), chosen)


def _without_rewards(name: str, tmp_path: Path, episodes: list[Known]) -> Path:
    if name == "lerobot":
        return writers.lerobot(tmp_path / "data", episodes, rewards=False)
    path = write(name, tmp_path / "data", episodes)
    if name == "hdf5":
        import h5py

        with h5py.File(path, "a") as file:
            file["reward"][:] = np.nan
    else:
        table = path / "actions.csv"
        lines = [line.split(",") for line in table.read_text().splitlines()]
        table.write_text("\n".join(",".join(line[:3]) for line in lines))
    return path


@pytest.mark.parametrize("name", ["hdf5", "lerobot", "videos"])
def test_rewards_that_nobody_knows(tmp_path: Path, name: str) -> None:
    pytest.importorskip({"hdf5": "h5py", "lerobot": "pyarrow", "videos": "av"}[name])
    episodes = known()
    found, records = brought(name, _without_rewards(name, tmp_path, episodes), tmp_path)
    assert found.rewards == 0 and all(np.isnan(r["reward"]).all() for r in records)
    short = 1 if name == "lerobot" else 0  # where the last action led, and what it earned, was not recorded
    for r, e in zip(records, episodes, strict=True):
        assert len(r) == e.steps + 1 - short
        assert r["is_terminal"][-1] == (e.terminated and name == "hdf5")  # others do not say, or have not recorded it
        np.testing.assert_allclose(r["action"][1:], e.action[: len(r) - 1], atol=1e-6)


def test_a_film_with_as_many_frames_as_actions(tmp_path: Path) -> None:
    episodes = known()
    path = writers.videos(tmp_path / "data", episodes)
    for number, episode in enumerate(episodes):
        writers._film(path / f"take_{number}.mp4", list(episode.image[:-1]))
    _, records = brought("videos", path, tmp_path)
    doubled = [e._replace(image=np.concatenate([e.image[:-1], e.image[-2:-1]])) for e in episodes]
    check(records, doubled, tolerance=FILM)


def test_a_table_in_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    episodes = known()
    path = writers.videos(tmp_path / "data", episodes)
    (path / "actions.csv").unlink()
    rows: list[dict[str, Any]] = []
    for number, e in enumerate(episodes):
        rows += [
            {"video": f"take_{number}.mp4", "action": action, "reward": reward, "terminated": e.terminated}
            for action, reward in zip(e.action.tolist(), e.reward.tolist(), strict=True)
        ]
    parquet.write_table(pa.Table.from_pylist(rows), path / "table.parquet")
    _, records = brought("videos", path, tmp_path)
    check(records, episodes, tolerance=FILM)


def test_pictures_in_the_table_of_lerobot(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    episodes, camera = known(), "observation.images.top"
    path = writers.lerobot(tmp_path / "data", episodes)
    info = json.loads((path / "meta/info.json").read_text())
    info["features"][camera]["dtype"] = "image"
    (path / "meta/info.json").write_text(json.dumps(info))
    data = path / "data/chunk-000/file-000.parquet"
    rows, pictures = parquet.read_table(data).to_pylist(), [x for e in episodes for x in e.image[:-1]]
    for row, picture in zip(rows, pictures, strict=True):
        held = io.BytesIO()
        Image.fromarray(picture).save(held, format="PNG")
        row[camera] = {"bytes": held.getvalue(), "path": None}
    parquet.write_table(pa.Table.from_pylist(rows), data)
    _, records = brought("lerobot", path, tmp_path)
    check(records, [e._replace(image=np.concatenate([e.image[:-1], e.image[-2:-1]])) for e in episodes])


def test_an_episode_without_a_step_is_left_out(tmp_path: Path) -> None:
    episodes = known()
    path = writers.v_d4rl(tmp_path / "data", episodes)
    one = {name: x[:1] for name, x in np.load(sorted(path.iterdir())[0]).items()}
    np.savez(path / "0.npz", **one)
    found, records = brought("v-d4rl", path, tmp_path)
    assert found.stepless == 1
    check(records, episodes)


@pytest.mark.parametrize(
    ("actions", "scale"),
    [
        ([np.array([[0.2, -0.4]]), np.array([[0.9, 0.1]])], ActionScale.box([-1, -1], [1, 1], "unit")),
        ([np.array([[0.0, -3.0]]), np.array([[2.0, -3.0]])], ActionScale.box([0, -3], [2, -3], "data")),
        ([np.array([0, 2]), np.array([1])], ActionScale.choices(3, 0, "data")),
        ([np.eye(4)[[0, 3]], np.eye(4)[[1]]], ActionScale.choices(4, 0, "data")),
        ([np.array([[1.0], [0.0]])], ActionScale.box([-1], [1], "unit")),
    ],
)
def test_the_scale_of_actions(actions: list[np.ndarray], scale: ActionScale) -> None:
    assert measured(actions) == scale
    for action in actions:
        inside = scale.scaled(action, "here")
        assert inside.shape == (len(action), scale.size) and np.abs(inside).max() <= 1
        again = scale.original(inside)
        np.testing.assert_allclose(again, action.argmax(1) if scale.discrete and action.ndim == 2 else action)


def test_one_replay_reads_as_it_was_imported(tmp_path: Path) -> None:
    """Actions come back in the units that they had, so that a second import scales them the same."""
    path = write("minari", tmp_path / "data", known(scale=3.0))
    first = import_episodes(open_format("minari", path), tmp_path / "run/replay/rank_0", SIZE)
    first.write(tmp_path / "run/replay")
    second = import_episodes(open_format("replay", tmp_path / "run"), tmp_path / "again", SIZE)
    assert second.scale == first.scale
    for one, other in zip(stored(tmp_path / "run/replay/rank_0"), stored(tmp_path / "again"), strict=True):
        np.testing.assert_allclose(one["action"], other["action"], atol=1e-6)
        np.testing.assert_array_equal(one["image"], other["image"])
