"""``worldmodel import``: what it leaves, what it says, and that it leaves nothing where something is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.experience.formats.test_formats import check, stored, write
from tests.experience.formats.writers import known
from worldmodel.experience.imported import read_imported
from worldmodel.training.cli import run


def imported(tmp_path: Path, *given: str, name: str = "v-d4rl") -> Path:
    run(["import", name, str(tmp_path / "data"), "--run", str(tmp_path / "run"), "--size", "16", *given])
    return tmp_path / "run"


def test_an_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = known()
    write("v-d4rl", tmp_path / "data", episodes)
    folder = imported(tmp_path)
    check(stored(folder / "replay/rank_0"), episodes)
    said = capsys.readouterr().out
    assert "imported 3 episodes (15 records, " in said and "; 1 end in a terminal state)" in said
    assert "actions of 2 numbers in [-1, 1]; all rewards\n" in said and f"fit --offline --run {folder}" in said
    assert sorted(path.name for path in folder.iterdir()) == ["replay"]
    held = read_imported(folder)
    assert held is not None and (held.format, held.image_shape, held.records) == ("v-d4rl", (3, 16, 16), 15)


def test_images_are_resized_and_actions_scaled(tmp_path: Path) -> None:
    episodes = known(size=32, scale=3.0)
    write("v-d4rl", tmp_path / "data", episodes)
    folder = imported(tmp_path, "--low=-4", "--high=[4.0, 6.0]")
    found = stored(folder / "replay/rank_0")
    held = read_imported(folder)
    assert held is not None and held.scale.low == (-4, -4) and held.scale.high == (4, 6)
    for records, episode in zip(found, episodes, strict=True):
        smaller = episode.image.reshape(-1, 16, 2, 16, 2, 3).astype(float).mean((2, 4)).transpose(0, 3, 1, 2)
        assert np.abs(records["image"] - smaller).max() <= 1
        np.testing.assert_allclose(held.scale.original(records["action"][1:]), episode.action, atol=1e-5)
        assert np.abs(records["action"]).max() <= 1


def test_a_box_that_nobody_gives_is_the_datas_own(tmp_path: Path) -> None:
    episodes = known(scale=3.0)
    write("v-d4rl", tmp_path / "data", episodes)
    held = read_imported(imported(tmp_path))
    actions = np.concatenate([episode.action for episode in episodes])
    assert held is not None and held.scale.source == "data"
    np.testing.assert_allclose([held.scale.low, held.scale.high], [actions.min(0), actions.max(0)])
