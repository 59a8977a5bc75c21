"""Records that are wrong: looked at before they are stored, and when a replay is opened."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experience.test_replay import SHAPE, episode, filled, names, replay
from worldmodel.errors import UserError
from worldmodel.experience.chunks import ChunkName, columns_of, write_chunk
from worldmodel.experience.replay import Replay


def of(kind: str, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Records whose field ``kind`` is of another type, and all else as it should be."""

    def change(records: np.ndarray) -> np.ndarray:
        fields = [(x, value if x == kind else records.dtype[x]) for x in records.dtype.names or ()]
        return np.zeros(len(records), np.dtype(fields))

    return change


def with_value(kind: str, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(records: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            records[kind][1] = value
        return records

    return change


WRITTEN: list[tuple[str, Callable[[np.ndarray], Any], str]] = [
    ("float pictures", of("image", ("<f4", SHAPE)), "records are image uint8[3, 8, 8], action float32[2], reward "),
    ("int16 pictures", of("image", ("<i2", SHAPE)), "got image int16[3, 8, 8]"),
    ("empty pictures", of("image", ("u1", (3, 0, 0))), "got image uint8[3, 0, 0]"),
    ("pictures of another shape", of("image", ("u1", (8, 8, 3))), "got image uint8[8, 8, 3]"),
    ("another action", of("action", ("<f4", (3,))), "action float32[3]"),
    ("integer rewards", of("reward", "<i8"), "reward int64"),
    ("flags that are numbers", of("is_terminal", "<i4"), "is_terminal int32"),
    ("reward inf", with_value("reward", math.inf), "a record's reward is not finite"),
    ("reward 1e300", with_value("reward", 1e300), "a record's reward is not finite: float32 holds numbers up to"),
    ("action NaN", with_value("action", math.nan), "a record's action is not finite"),
    ("action inf", with_value("action", math.inf), "a record's action is not finite"),
    ("no fields", lambda records: records["image"], "records are an array (L,), got (4, 3, 8, 8)"),
    ("a list", lambda records: records.tolist(), "records are an array (L,)"),
    ("numbers", lambda records: np.zeros(4), "got float64"),
    ("a table of records", lambda records: records[None], "records are an array (L,), got (1, 4)"),
]


@pytest.mark.parametrize(("change", "message"), [x[1:] for x in WRITTEN], ids=[x[0] for x in WRITTEN])
def test_records_are_looked_at_before_they_are_stored(tmp_path: Path, change: Callable, message: str) -> None:
    store = filled(tmp_path, [4])
    before = names(tmp_path)
    for write in (store.add_episode, lambda records: store.add(0, records)):
        with pytest.raises(ValueError) as error:
            write(change(episode(1, 4)))
        assert message in str(error.value) and "\n" not in str(error.value)
    assert len(store) == 4 and names(tmp_path) == before
    store.add_episode(episode(1, 4))


def column(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], dict]:
    return lambda columns: columns | {name: change(columns[name])}


def set_to(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.where(np.arange(len(x)).reshape(-1, *[1] * (x.ndim - 1)) == 1, value, x).astype(x.dtype)


OTHER, DAMAGED = "whose images or actions are of another shape", "skipping the damaged replay file"
STORED: list[tuple[str, Callable[[dict], dict], str, str]] = [
    ("float frames", column("image", lambda x: x / np.float32(255)), DAMAGED, "holds image (4, 3, 8, 8) of float"),
    ("int16 frames", column("image", lambda x: x.astype("i2")), DAMAGED, "of int16, not (4, 3, 8, 8) of uint8"),
    ("frames of another size", column("image", lambda x: x[..., :4]), OTHER, ""),
    ("empty frames", column("image", lambda x: x[:, :, :0, :0]), OTHER, ""),
    ("channels last", column("image", lambda x: np.moveaxis(x, 1, 3).copy()), OTHER, ""),
    ("fewer frames", column("image", lambda x: x[:3]), DAMAGED, "holds image (3, 3, 8, 8)"),
    ("another action", column("action", lambda x: x[:, :1].copy()), OTHER, ""),
    ("double actions", column("action", lambda x: x.astype("f8")), DAMAGED, "holds action (4, 2) of float64"),
    ("action NaN", column("action", set_to(math.nan)), DAMAGED, "holds a action that is not finite"),
    ("reward inf", column("reward", set_to(math.inf)), DAMAGED, "holds a reward that is not finite"),
    ("reward -inf", column("reward", set_to(-math.inf)), DAMAGED, "holds a reward that is not finite"),
    ("rewards that are tables", column("reward", lambda x: np.zeros((4, 2), "f4")), DAMAGED, "holds reward (4, 2)"),
    ("flags that are numbers", column("is_terminal", lambda x: x.astype("f4")), DAMAGED, "holds is_terminal (4,)"),
    ("flags of 7", column("is_first", lambda x: np.full(4, 7, "u1").view("?")), DAMAGED, "neither true nor false"),
    ("episodes below 0", column("episode", lambda x: x - 99), DAMAGED, "episodes that do not count up"),
    ("episodes backwards", column("episode", lambda x: np.arange(4, 0, -1)), DAMAGED, "episodes that do not count up"),
    ("an episode of 2^62", column("episode", lambda x: x + 2**62), DAMAGED, "episodes that do not count up"),
    ("no reward", lambda columns: {k: v for k, v in columns.items() if k != "reward"}, DAMAGED, "reward.npy"),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replays") / "sound"
    filled(folder, [4, 5])
    return folder


@pytest.mark.parametrize(("change", "kind", "message"), [x[1:] for x in STORED], ids=[x[0] for x in STORED])
def test_files_with_wrong_data_are_skipped(sound: Path, tmp_path: Path, change: Any, kind: str, message: str) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "replay"))
    columns = change(columns_of(episode(7, 4)) | {"episode": np.full(4, 7)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = folder / str(ChunkName(2, 0, 0, 4))
        write_chunk(folder, ChunkName(2, 0, 0, 4), {"episode": np.zeros(4, "i8")} | columns)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        store = replay(folder)
    (said,) = [str(x.message) for x in warned]
    assert kind in said and message in said and str(path) in said and "\n" not in said
    assert len(store) == 9 and path.exists() and set(store.sample(32, 4).episode.flatten().tolist()) == {0, 1}
    store.add(0, episode(3, 4))
    assert len(store) == 13


def test_a_folder_of_another_run_is_refused_as_a_whole(sound: Path) -> None:
    for image_shape, action_size in (((3, 16, 16), 2), (SHAPE, 3)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserError, match="use another run folder"):
                Replay(sound, image_shape=image_shape, action_size=action_size)
