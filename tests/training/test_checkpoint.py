"""What is written is what is read, or one line says that it is not."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from worldmodel.errors import UserError
from worldmodel.training.checkpoint import link, load_checkpoint, save_checkpoint

SAVED: dict[str, Any] = {
    "state_dict": {"weight": torch.arange(64.0).view(8, 8)},
    "updates": 3,
    "frames": 12,
    "progress": {"round": 1},
    "optimizer": {},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "last.ckpt", SAVED)
    return tmp_path / "last.ckpt"


def test_a_checkpoint_is_a_plain_file_of_torch(path: Path) -> None:
    for held in (load_checkpoint(path, resumes=True), torch.load(path, weights_only=True)):
        assert torch.equal(held["state_dict"]["weight"], SAVED["state_dict"]["weight"]) and held["updates"] == 3
    assert zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip() is None


def test_a_flipped_bit_anywhere_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    draw = random.Random(0)
    last = range(len(whole) - 60, len(whole))  # the checksum itself, its mark, and the archive's end
    for place in (0, 1, *draw.sample(range(len(whole)), 100), *last):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"last\.ckpt is damaged.*best\.ckpt may serve") as said:
            load_checkpoint(path)
        assert "\n" not in str(said.value)


@pytest.mark.parametrize("length", [0, 1, 10, 100, -1, -25])
def test_one_that_is_cut_short_is_noticed(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(path)


def test_one_of_an_older_version_has_no_checksum_and_is_read(path: Path) -> None:
    torch.save(SAVED, path)
    assert load_checkpoint(path)["updates"] == 3


@pytest.mark.parametrize("name", ["state_dict", "updates", "frames", "progress"])
@pytest.mark.parametrize("value", [None, "<b>", [1]])
def test_what_it_holds_is_of_its_kind(path: Path, name: str, value: Any) -> None:
    torch.save(SAVED | {name: value}, path)
    with pytest.raises(UserError, match=f"not one of ours: its {name} is no"):
        load_checkpoint(path)


@pytest.mark.parametrize("links", [True, False])
def test_the_best_is_the_last_where_there_are_links_and_where_there_are_none(
    path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    if not links:
        monkeypatch.setattr("os.link", none)
    link(path, path.with_name("best.ckpt"))
    assert path.with_name("best.ckpt").samefile(path) == links
    assert load_checkpoint(path.with_name("best.ckpt"))["updates"] == 3
