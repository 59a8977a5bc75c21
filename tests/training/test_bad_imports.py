"""Whatever is wrong with data of others is one clear line, and nothing of it is imported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experience.formats.test_formats import write
from tests.experience.formats.writers import Known, known
from tests.training.conftest import files
from worldmodel.commands import import_data
from worldmodel.errors import UserError
from worldmodel.experience.formats import base
from worldmodel.training.cli import run

Change = Callable[[Path], Any]
VIDEO = "videos/observation.images.top/chunk-000/file-000.mp4"


def _only(path: Path) -> Path:
    """The file, or the last of a folder."""
    return path if path.is_file() else max(p for p in path.rglob("*") if p.is_file())


def cut(name: str = "") -> Change:
    def change(path: Path) -> None:
        file = path / name if name else _only(path)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return change


def npz(**columns: Any) -> Change:
    """Other columns in the last episode; None leaves one out."""

    def change(path: Path) -> None:
        file = _only(path)
        held = dict(np.load(file))
        new = held | {name: x(held) if callable(x) else x for name, x in columns.items()}
        np.savez(file, **{name: x for name, x in new.items() if x is not None})

    return change


def h5(**columns: Any) -> Change:
    def change(path: Path) -> None:
        import h5py

        with h5py.File(_only(path), "a") as file:
            for name, values in columns.items():
                where = name.replace("__", "/")
                new = values(file[where][()]) if callable(values) else values
                del file[where]
                if new is not None:
                    file[where] = new

    return change


def info(**more: Any) -> Change:
    def change(path: Path) -> None:
        file = path / "meta/info.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | more))

    return change


def text(name: str, old: str, new: str) -> Change:
    def change(path: Path) -> None:
        file = path / name
        file.write_text(file.read_text().replace(old, new))

    return change


def emptied(path: Path) -> None:
    for file in path.rglob("*"):
        if file.is_file():
            file.unlink()


def with_nan(values: np.ndarray) -> np.ndarray:
    changed = values.astype(np.float32)
    changed[2] = np.nan
    return changed


def _smaller(held: dict[str, np.ndarray]) -> np.ndarray:
    return held["image"][:, :12]


def _floats(held: dict[str, np.ndarray]) -> np.ndarray:
    return held["image"].astype(np.float32)


def _vector(held: dict[str, np.ndarray]) -> np.ndarray:
    return held["image"][:, :2, :2]


BAD: list[tuple[str, Change, str]] = [
    ("v-d4rl", cut(), "cannot be read as an .npz file: it is damaged, cut short or something else"),
    ("v-d4rl", npz(reward=None), "lacks reward, which an episode of V-D4RL has: it holds action, discount, image"),
    ("v-d4rl", npz(image=_smaller), "has images uint8 (12, 16, 3), the others (16, 16, 3)"),
    ("v-d4rl", npz(image=_floats), "has images float32"),
    ("v-d4rl", npz(image=lambda held: held["image"][:-1]), "has columns of several lengths"),
    ("v-d4rl", npz(reward=lambda held: with_nan(held["reward"])), "has a reward that is not finite, at step 1"),
    ("v-d4rl", npz(action=lambda held: with_nan(held["action"])), "has an action that is not finite, at step 1"),
    ("v-d4rl", npz(action=lambda held: held["action"][:, :1]), "has actions of 1 numbers, not 2 as the others"),
    ("v-d4rl", emptied, "holds no .npz file: v-d4rl wants the folder of episodes"),
    ("v-d4rl-hdf5", cut(), "cannot be read as HDF5"),
    ("v-d4rl-hdf5", h5(step_type=None), "lacks step_type, which a shard of V-D4RL has"),
    ("v-d4rl-hdf5", h5(step_type=lambda x: x[1:]), "has columns of several lengths"),
    ("v-d4rl-hdf5", h5(step_type=lambda x: np.roll(x, 1)), "begins within an episode: its first step_type is 2"),
    ("v-d4rl-hdf5", emptied, "holds no .hdf5 file"),
    ("hdf5", cut(), "cannot be read as HDF5"),
    ("hdf5", h5(action=None), "lacks action, which a file of stable-worldmodel has: it holds ep_len, ep_offset"),
    ("hdf5", h5(pixels=None), "holds no pictures: a world model from pixels needs them"),
    ("hdf5", h5(pixels=lambda x: x[:-3]), "is it cut short?"),
    ("hdf5", h5(reward=with_nan), "has a reward that is not finite, at step 1"),
    ("hdf5", h5(ep_len=lambda x: x[:0], ep_offset=lambda x: x[:0]), "there is no episode with an action in it"),
    ("minari", cut("data/main_data.hdf5"), "cannot be read as HDF5"),
    ("minari", cut("data/metadata.json"), "cannot be read as JSON"),
    ("minari", text("data/metadata.json", '"hdf5"', '"arrow"'), "is of Minari's format arrow"),
    ("minari", text("data/metadata.json", "[1.0, 1.0]", "[0.1, 0.1]"), "0.1] (the file's box): --low and --high"),
    (
        "minari",
        text("data/metadata.json", '\\"Box\\"', '\\"Dict\\"'),
        "has actions of Dict: known are Box and Discrete",
    ),
    ("minari", emptied, "is no dataset of Minari: there is no data/main_data.hdf5"),
    ("lerobot", cut("meta/info.json"), "cannot be read as JSON"),
    ("lerobot", cut("data/chunk-000/file-000.parquet"), "cannot be read as Parquet"),
    ("lerobot", cut(VIDEO), "cut short"),
    ("lerobot", info(codebase_version="v2.1"), "is of LeRobot's version v2.1: convert it to v3.0"),
    ("lerobot", info(features={}), "lacks action, which a dataset of LeRobot has"),
    ("lerobot", info(data_path="../x.parquet"), "speaks of a file out of the folder"),
    ("lerobot", emptied, "is no dataset of LeRobot: there is no meta/info.json"),
    ("videos", cut("take_1.mp4"), "take_1.mp4"),
    ("videos", text("actions.csv", "video,", "clip,"), "lacks video, which a table of actions has"),
    ("videos", text("actions.csv", "take_1,", "take_7,"), "speaks of take_7, and there is no such film"),
    ("videos", text("actions.csv", ",0\n", ",0\ntake_0,0,0,0,0\ntake_0,0,0,0,0\n"), "images and"),
    ("videos", text("actions.csv", "\ntake_2,", "\ntake_2,x"), "column action_0 that does not hold numbers"),
    ("videos", text("actions.csv", "take_1,", "take_1,0,"), "has not as many values as the 5 names"),
    ("videos", emptied, "holds 0 tables: videos wants one"),
    ("replay", cut(), "is damaged: "),
    ("replay", emptied, "holds no replay"),
]


def fails(complaint: Any, tmp_path: Path, *given: str) -> str:
    """The one line; nothing is left of the import."""
    said = complaint(["import", *given, "--run", str(tmp_path / "run"), "--size", "16"])
    assert not (tmp_path / "run").exists()
    return said


@pytest.mark.parametrize(("name", "change", "message"), BAD)
def test_what_is_wrong_is_said(complaint: Any, tmp_path: Path, name: str, change: Change, message: str) -> None:
    path = write(name, tmp_path / "data", known())
    change(path)
    assert message in fails(complaint, tmp_path, name, str(path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["v-d4lr", "."], "no format v-d4lr: did you mean v-d4rl?"),
        (["xyz", "."], "no format xyz: there are v-d4rl, v-d4rl-hdf5, hdf5, minari, lerobot, videos, replay"),
        (["minari", "no/data"], "there is no no/data"),
        (["v-d4rl", "{data}", "--low=-0.1", "--high=0.1"], "0.1] (as given): --low and --high say another box"),
        (["v-d4rl", "{data}", "--low=-1"], "a box has both ends: give --low and --high"),
        (["v-d4rl", "{data}", "--low=1", "--high=-1"], "--low [1.0] is not below --high [-1.0]"),
        (["v-d4rl", "{data}", "--low=-1", "--high=[1.0, 1.0, 1.0]"], "--high has 3 numbers and an action 2"),
        (["v-d4rl", "{data}", "--size=4"], "size is 4: it must be 8 or more"),
        (["replay", "{data}"], "the replay"),
    ],
)
def test_what_is_asked_wrongly(complaint: Any, tmp_path: Path, given: list[str], message: str) -> None:
    data = write("v-d4rl", tmp_path / "data", known())
    words = [word.format(data=data) for word in given]
    size = [] if any("--size" in word for word in words) else ["--size", "16"]
    assert message in complaint(["import", *words, "--run", str(tmp_path / "run"), *size])
    assert not (tmp_path / "run").exists()


def test_a_folder_is_asked_for(complaint: Any, tmp_path: Path) -> None:
    assert "say for which run: worldmodel import minari . --run runs/NAME" in complaint(["import", "minari", "."])


def test_a_run_that_is_there_is_left_alone(complaint: Any, tmp_path: Path) -> None:
    write("v-d4rl", tmp_path / "data", known())
    given = ["import", "v-d4rl", str(tmp_path / "data"), "--run", str(tmp_path / "run"), "--size", "16"]
    run(given)
    before = files(tmp_path / "run")
    assert "has a replay already: name another folder" in complaint(given)
    assert files(tmp_path / "run") == before


def test_a_kill_leaves_what_the_next_import_takes_away(tmp_path: Path) -> None:
    write("v-d4rl", tmp_path / "data", known())
    left = tmp_path / "run" / import_data._UNFINISHED / "rank_0"
    left.mkdir(parents=True)
    (left / "00000009-episode-0-4.npz").write_bytes(b"half")
    run(["import", "v-d4rl", str(tmp_path / "data"), "--run", str(tmp_path / "run"), "--size", "16"])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["replay"]
    assert len(list((tmp_path / "run/replay/rank_0").iterdir())) == 3


def test_an_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("v-d4rl", tmp_path / "data", known())

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_data, "import_episodes", interrupted)
    with pytest.raises(SystemExit) as end:
        run(["import", "v-d4rl", str(tmp_path / "data"), "--run", str(tmp_path / "run")])
    assert end.value.code == 130 and not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(UserError, match=r"minari needs h5px, which is not installed: pip install 'worldmodel\[data\]'"):
        base.package("h5px.more", "minari")


def several(path: Path, episodes: list[Known]) -> None:
    import h5py

    write("minari", path, episodes)
    with h5py.File(path / "data/main_data.hdf5", "a") as file:
        for name in list(file):
            seen = file[name]["observations"][()]
            del file[name]["observations"]
            file[f"{name}/observations/left"], file[f"{name}/observations/right"] = seen, 255 - seen
            file[f"{name}/observations/state"] = np.zeros((len(seen), 3))


def test_one_of_several_pictures(complaint: Any, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    several(tmp_path / "data", known())
    said = fails(complaint, tmp_path, "minari", str(tmp_path / "data"))
    assert "holds several pictures (left, right): say which with --image" in said
    said = fails(complaint, tmp_path, "minari", str(tmp_path / "data"), "--image", "top")
    assert "has no picture top: there are left, right" in said
    given = ["--run", str(tmp_path / "run"), "--size", "16", "--image", "right"]
    run(["import", "minari", str(tmp_path / "data"), *given])
