from __future__ import annotations

import errno
import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldmodel.errors import UserError
from worldmodel.experience.replay import Replay, record_dtype
from worldmodel.types import SequenceBatch

SHAPE = (3, 8, 8)


def episode(number: int, length: int) -> np.ndarray:
    """Records that tell where they come from: image = episode, reward = position."""
    records = np.zeros(length, record_dtype(SHAPE, 2))
    records["image"], records["reward"] = number, np.arange(length)
    records["action"] = number + 0.5
    records["is_first"][0] = records["is_terminal"][-1] = True
    return records


def replay(path: Path, **options: int) -> Replay:
    return Replay(path, image_shape=SHAPE, action_size=2, **options)


def filled(path: Path, lengths: list[int], **options: int) -> Replay:
    store = replay(path, **options)
    for number, length in enumerate(lengths):
        store.add_episode(episode(number, length))
    return store


def test_sequences_follow_the_stream(tmp_path: Path) -> None:
    lengths = [5, 3, 7, 1]
    store = filled(tmp_path, lengths)
    assert (len(store), store.num_episodes) == (16, 4)
    stream = [(number, position) for number, length in enumerate(lengths) for position in range(length)]
    batch = store.sample(64, 20)
    assert batch.image.shape == (64, 20, *SHAPE)
    assert batch.action.shape == (64, 20, 2)
    assert batch.features is None
    assert [x.dtype for x in batch[:6]] == [
        torch.uint8, torch.float32, torch.float32, torch.bool, torch.bool, torch.int64,
    ]  # fmt: skip
    starts = set()
    for row in range(64):
        rows = list(
            zip(
                batch.episode[row].tolist(),
                batch.reward[row].int().tolist(),
                strict=True,
            )
        )
        start = stream.index(rows[0])
        starts.add(start)
        assert rows == [stream[(start + i) % len(stream)] for i in range(20)]
    assert len(starts) > 12
    assert torch.equal(batch.is_first, batch.reward == 0)
    assert torch.equal(batch.image[..., 0, 0, 0].long(), batch.episode)
    assert torch.equal(batch.action[..., 0], batch.episode + 0.5)


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def equal(one: SequenceBatch, other: SequenceBatch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one[:6], other[:6], strict=True))


def saved(store: Replay) -> Any:
    """A replay's state, through a checkpoint."""
    buffer = io.BytesIO()
    torch.save(store.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_the_oldest_records_leave_and_their_files_wait_for_commit(tmp_path: Path) -> None:
    store = filled(tmp_path, [4, 4, 4], capacity=9)
    assert (store.num_episodes, len(store)) == (3, 9)
    store.state_dict()
    store.add_episode(episode(3, 4))
    assert (store.num_episodes, len(store)) == (3, 9)
    assert set(store.sample(64, 1).episode.flatten().tolist()) == {1, 2, 3}
    assert set(store.sample(64, 1).reward[..., 0].flatten().tolist()) == {0, 1, 2, 3}
    assert len(names(tmp_path)) == 4
    store.commit()
    assert names(tmp_path) == [f"{number:08d}-episode-0-4.npz" for number in (1, 2, 3)]
    one = filled(tmp_path / "one", [20], capacity=5)
    assert sorted(set(one.sample(64, 1).reward.flatten().tolist())) == [15, 16, 17, 18, 19] and len(one) == 5


def test_what_no_checkpoint_knows_leaves_the_disk_at_once(tmp_path: Path) -> None:
    store = filled(tmp_path, [4] * 9, capacity=9)
    assert names(tmp_path) == [f"{number:08d}-episode-0-4.npz" for number in (6, 7, 8)]
    again = replay(tmp_path, capacity=4)  # nor does opening delete anything
    assert len(names(tmp_path)) == len(store) // 4 + 1 and len(again) == 4


def test_resume_is_exact_and_forgets_what_came_after(tmp_path: Path) -> None:
    store = filled(tmp_path, [4, 5, 6], capacity=12)
    store.sample(4, 8)
    state = saved(store)
    expected = [store.sample(4, 8) for _ in range(3)]
    store.add_episode(episode(3, 9))
    again = replay(tmp_path, capacity=12, seed=99)
    again.load_state_dict(state)
    assert (again.num_episodes, len(again)) == (3, 12)
    assert all(equal(batch, again.sample(4, 8)) for batch in expected)
    again.add_episode(episode(3, 2))
    assert [name for name in names(tmp_path) if name.startswith("00000003")] == ["00000003-episode-0-2.npz"]


def test_reopening_without_a_checkpoint(tmp_path: Path) -> None:
    filled(tmp_path, [4, 5])
    (tmp_path / "unfinished.tmp").write_bytes(b"half")
    store = replay(tmp_path)
    store.add_episode(episode(2, 3))
    assert len(store) == 12 and not list(tmp_path.glob("*.tmp"))
    assert set(store.sample(64, 1).episode.flatten().tolist()) == {0, 1, 2}


def test_damaged_files_are_skipped(tmp_path: Path) -> None:
    filled(tmp_path, [4, 5, 6, 7, 8])
    (tmp_path / "notes.txt").write_text("not ours")
    files = sorted(tmp_path.glob("*.npz"))
    os.truncate(files[0], files[0].stat().st_size - 1)
    os.truncate(files[1], 20)
    files[2].rename(tmp_path / "00000002-episode-0-9.npz")
    files[3].write_bytes(b"")
    np.savez(tmp_path / "00000005-0-0-2.npz", image=np.array([{"a": 1}, None], object))
    np.savez(tmp_path / "00000006-0-0-2.npz", image=np.zeros(2))
    np.savez_compressed(tmp_path / "00000007-0-2-2.npz", image=np.zeros(2))
    (tmp_path / "00000008-0-4-4.npz").mkdir()
    (tmp_path / "00000009-0-8-0.npz").touch()
    with pytest.warns(UserWarning, match="damaged replay file") as warned:
        store = replay(tmp_path)
    assert len(warned) == 9
    assert all("\n" not in str(warning.message) for warning in warned)
    assert set(store.sample(8, 4).episode.flatten().tolist()) == {4}
    store.add_episode(episode(7, 2))
    assert (tmp_path / "00000010-episode-0-2.npz").exists()


def test_a_flipped_byte_is_found_wherever_it_is(tmp_path: Path) -> None:
    expected = filled(tmp_path, [3, 3]).sample(4, 6)
    path = min(tmp_path.glob("*.npz"))
    whole, skipped = path.read_bytes(), 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            store = replay(tmp_path)
        if warned:
            assert f"skipping the damaged replay file {path}" in str(warned[0].message) and len(store) == 3
            skipped += 1
        else:  # a date in the archive: nothing that is read
            assert equal(store.sample(4, 6), expected)
    assert skipped > 200 > len(whole) / 14  # of a file that is mostly headers


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    store = filled(tmp_path, [4])

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="is full: free some space"):
            store.add_episode(episode(1, 4))
    assert names(tmp_path) == ["00000000-episode-0-4.npz"]
    store.add_episode(episode(1, 4))
    assert len(store) == 8


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty"):
        replay(tmp_path).sample(1, 1)
    with pytest.raises(UserError, match="capacity is 0"):
        replay(tmp_path, capacity=0)
    with pytest.raises(ValueError, match="begins with is_first"):
        replay(tmp_path).add_episode(episode(0, 4)[1:])
    store = filled(tmp_path, [4])
    with pytest.raises(UserError, match="use another run folder"):
        Replay(tmp_path, image_shape=(3, 16, 16), action_size=2)
    state = store.state_dict()
    (tmp_path / "00000000-episode-0-4.npz").unlink()
    with pytest.raises(UserError, match="restore the folder"):
        replay(tmp_path).load_state_dict(state)
    with pytest.raises(ValueError, match="a stream from 0 on"):
        store.add(-1, episode(0, 4))
    np.save(tmp_path / "00000397-126.npy", np.zeros(2))
    with pytest.raises(UserError, match=r"holds episodes of an older version \(00000397-126.npy\)"):
        replay(tmp_path)


def test_a_look_aside_draws_nothing(tmp_path: Path) -> None:
    one, other = filled(tmp_path, [4, 4, 4]), filled(tmp_path / "other", [4, 4, 4])
    with one.aside():
        aside = one.sample(8, 3)
    drawn, expected = one.sample(8, 3), other.sample(8, 3)
    assert all(a.equal(b) for a, b in zip(drawn[:6], expected[:6], strict=True))
    assert aside.episode.shape == (8, 3)
