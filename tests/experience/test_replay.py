from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodel.errors import UserError
from worldmodel.experience.replay import Replay, record_dtype

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


def test_eviction_waits_for_commit(tmp_path: Path) -> None:
    store = filled(tmp_path, [4, 4, 4, 4], capacity=9)
    assert (store.num_episodes, len(store)) == (2, 8)
    assert set(store.sample(8, 4).episode.flatten().tolist()) == {2, 3}
    assert len(list(tmp_path.iterdir())) == 4
    store.commit()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "00000002-4.npy",
        "00000003-4.npy",
    ]
    assert len(filled(tmp_path / "one", [20], capacity=5)) == 20


def test_resume_is_exact_and_forgets_what_came_after(tmp_path: Path) -> None:
    store = filled(tmp_path, [4, 5, 6], capacity=12)
    store.sample(4, 8)
    buffer = io.BytesIO()
    torch.save(store.state_dict(), buffer)
    expected = [store.sample(4, 8) for _ in range(3)]
    store.add_episode(episode(3, 9))
    buffer.seek(0)
    again = replay(tmp_path, capacity=12, seed=99)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert (again.num_episodes, len(again)) == (2, 11)
    for batch in expected:
        for one, two in zip(batch[:6], again.sample(4, 8)[:6], strict=True):
            assert torch.equal(one, two)
    again.add_episode(episode(3, 2))
    assert not (tmp_path / "00000003-9.npy").exists()
    assert (tmp_path / "00000003-2.npy").exists()


def test_reopening_without_a_checkpoint(tmp_path: Path) -> None:
    filled(tmp_path, [4, 5])
    (tmp_path / "00000002-7.tmp").write_bytes(b"half")
    store = replay(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
    store.add_episode(episode(2, 3))
    assert len(store) == 12


def test_damaged_files_are_skipped(tmp_path: Path) -> None:
    filled(tmp_path, [4, 5, 6, 7, 8])
    (tmp_path / "notes.txt").write_text("not ours")
    files = sorted(tmp_path.glob("*.npy"))
    os.truncate(files[0], files[0].stat().st_size - 1)
    os.truncate(files[1], 20)
    files[2].rename(tmp_path / "00000002-9.npy")
    files[3].write_bytes(b"")
    np.save(tmp_path / "00000005-2.npy", np.array([{"a": 1}, None], object))
    np.save(tmp_path / "00000006-2.npy", np.zeros(2))
    with pytest.warns(UserWarning, match="damaged replay file") as warned:
        store = replay(tmp_path)
    assert len(warned) == 6
    assert all("\n" not in str(warning.message) for warning in warned)
    assert set(store.sample(8, 4).episode.flatten().tolist()) == {4}
    store.add_episode(episode(7, 2))
    assert (tmp_path / "00000007-2.npy").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    store = filled(tmp_path, [4])

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="is full: free some space"):
            store.add_episode(episode(1, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["00000000-4.npy"]
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
    (tmp_path / "00000000-4.npy").unlink()
    with pytest.raises(UserError, match="restore the folder"):
        replay(tmp_path).load_state_dict(state)


def test_a_look_aside_draws_nothing(tmp_path: Path) -> None:
    one, other = filled(tmp_path, [4, 4, 4]), filled(tmp_path / "other", [4, 4, 4])
    with one.aside():
        aside = one.sample(8, 3)
    drawn, expected = one.sample(8, 3), other.sample(8, 3)
    assert all(a.equal(b) for a, b in zip(drawn[:6], expected[:6], strict=True))
    assert aside.episode.shape == (8, 3)
