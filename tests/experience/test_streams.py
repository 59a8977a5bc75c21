"""Records that enter the replay as they come, one stream for each environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.experience.test_replay import SHAPE, episode, equal, names, replay, saved
from worldmodel.experience.replay import Replay, record_dtype
from worldmodel.types import SequenceBatch


def stretch(stream: int, begin: int, end: int, every: int = 10) -> np.ndarray:
    """Records [begin, end) of a stream whose episodes are ``every`` records long; they tell where they come from."""
    records = np.zeros(end - begin, record_dtype(SHAPE, 2))
    records["image"], records["reward"] = stream, np.arange(begin, end)
    records["action"] = stream + 0.5
    records["is_first"] = np.arange(begin, end) % every == 0
    return records


def step(store: Replay, time: int, streams: int = 2, every: int = 10) -> None:
    for stream in range(streams):
        store.add(stream, stretch(stream, time, time + 1, every))


def check(batch: SequenceBatch, every: int = 10) -> set[tuple[int, int]]:
    """A sequence follows its stream, or says that it does not; returns the records that were seen."""
    stream, time = batch.image[:, :, 0, 0, 0].long(), batch.reward.long()
    follows = (stream[:, 1:] == stream[:, :-1]) & (time[:, 1:] == time[:, :-1] + 1)
    assert torch.equal(batch.is_first[:, 1:], ~follows | (time[:, 1:] % every == 0))
    assert torch.equal(batch.is_first[:, 0], time[:, 0] % every == 0)
    same = batch.episode[:, 1:] == batch.episode[:, :-1]
    assert same[~batch.is_first[:, 1:]].all()  # where a memory goes on, it is of one episode
    return set(zip(stream.flatten().tolist(), time.flatten().tolist(), strict=True))


def test_the_next_batch_can_hold_the_last_step(tmp_path: Path) -> None:
    store = replay(tmp_path, chunk=7)
    for time in range(25):
        step(store, time)
        assert len(store) == 2 * (time + 1)
        seen = check(store.sample(64, 5))
        assert len(seen) > time and (time > 12 or {(0, time), (1, time)} <= seen)
    assert names(tmp_path) == [f"{2 * i + s:08d}-{s}-{7 * i}-7.npz" for i in range(3) for s in (0, 1)]
    assert store.num_episodes == 6
    batch = store.sample(256, 1)  # an episode has one number, and no two have the same
    number = {(s, t // 10): e for s, t, e in zip(*(x.flatten().tolist() for x in (
        batch.image[:, :, 0, 0, 0], batch.reward.long(), batch.episode)), strict=True)}  # fmt: skip
    assert sorted(number.values()) == list(range(6))


def test_an_episode_that_never_ends(tmp_path: Path) -> None:
    store, most = replay(tmp_path, capacity=100, chunk=6), 0
    for time in range(600):
        step(store, time, every=10**9)
        most = max(most, sum(int(name.split("-")[3][:-4]) for name in names(tmp_path)))
    assert len(store) == 100 and most <= 100 + 6
    assert min(t for _, t in check(store.sample(512, 4), every=10**9)) >= 600 - 50 - 6
    assert store.num_episodes == 2


def test_open_files_and_disk_are_bounded(tmp_path: Path) -> None:
    """At the limit of 256 open files, hundreds of chunks come and go; what is deleted is closed."""
    program = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from tests.experience.test_streams import replay, stretch
from pathlib import Path
os.fsync = lambda descriptor: None  # the disk is slow
store = replay(Path({str(tmp_path)!r}), capacity=1200, chunk=4)
for time in range(0, 1600, 4):
    store.add(0, stretch(0, time, time + 4))
    store.add_episode(stretch(1, 0, 5))
    if time % 400 == 0:
        store.state_dict(), store.commit()
        store.sample(200, 8)
store.sample(200, 8)
links = [f"/proc/self/fd/{{name}}" for name in os.listdir("/proc/self/fd")]
held = [name for link in links if os.path.lexists(link) and ".npz" in (name := os.readlink(link))]
assert 0 < len(held) < 128 and not [link for link in held if "deleted" in link], held
assert len(os.listdir({str(tmp_path)!r})) < 270 + 200  # of 800: what there is to sample, and what waits for commit
print(len(store))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1200\n", "")


@pytest.mark.parametrize("saved_at", [0, 1, 6, 7, 8, 45])
@pytest.mark.parametrize("capacity", [50, 1000])
def test_kill_and_resume_is_an_undisturbed_run(tmp_path: Path, saved_at: int, capacity: int) -> None:
    calm, troubled = (replay(tmp_path / name, chunk=7, capacity=capacity) for name in ("calm", "troubled"))
    for time in range(saved_at):
        for store in (calm, troubled):
            step(store, time)
    state = saved(troubled)
    troubled.commit()
    for time in range(saved_at, saved_at + 20):  # lost, but for what has come to the disk
        step(troubled, time)
        if time == saved_at + 10:
            troubled.flush()
    for _ in range(2):  # also if it is killed as soon as it is back
        troubled = replay(tmp_path / "troubled", chunk=7, capacity=capacity, seed=5)
        troubled.load_state_dict(state)
    for time in range(saved_at, saved_at + 60):
        for store in (calm, troubled):
            step(store, time)
        if time > saved_at:
            assert equal(calm.sample(3, 9), troubled.sample(3, 9))
    for store in (calm, troubled):
        store.state_dict(), store.commit()
    held = [{path.name: path.read_bytes() for path in (tmp_path / x).iterdir()} for x in ("calm", "troubled")]
    assert held[0] == held[1]
    check(troubled.sample(64, 20))


def test_a_kill_without_a_checkpoint_loses_the_open_chunk_only(tmp_path: Path) -> None:
    store = replay(tmp_path, chunk=7)
    for time in range(17):
        step(store, time)
    again = replay(tmp_path, chunk=7)
    assert len(again) == 2 * 14
    for time in range(100, 105):  # another process is not the same stream
        step(again, time)
    assert {t for _, t in check(again.sample(256, 6))} == {*range(14), *range(100, 105)}
    assert again.num_episodes == 6


def test_flushed_chunks_are_read_by_others(tmp_path: Path) -> None:
    store = replay(tmp_path, chunk=7)
    for time in range(10):
        step(store, time)
    store.flush()
    step(store, 10)
    store.flush()
    assert names(tmp_path) == [
        f"{2 * i + s:08d}-{s}-{7 * i}-{length}.npz" for i, length in ((0, 7), (1, 4)) for s in (0, 1)
    ]
    reader = replay(tmp_path)
    assert len(reader) == 22 and check(reader.sample(64, 5))


def test_where_a_chunk_is_lost_the_memory_is_cut(tmp_path: Path) -> None:
    store = replay(tmp_path, chunk=5)
    for time in range(25):
        step(store, time, every=100)
    state = saved(store)
    path = tmp_path / "00000002-0-5-5.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="damaged"):
        again = replay(tmp_path, chunk=5)
    with pytest.warns(UserWarning, match="lacks 1 chunks and 0 records of others that the checkpoint knows"):
        again.load_state_dict(state)
    assert path.exists() and len(again) == 45  # nothing is deleted that may be mended
    assert (0, 7) not in check(again.sample(256, 12), every=100)
    lengths = [len(records) for _, records in again.episodes()]
    assert lengths == [5, 15, 25]
    step(again, 25, every=100)
    again.state_dict(), again.commit()
    assert path.exists()


def test_a_lost_open_chunk(tmp_path: Path) -> None:
    store = replay(tmp_path, chunk=5)
    for time in range(8):
        step(store, time, every=100)
    state = saved(store)
    (tmp_path / "00000002-0-5-3.npz").write_bytes(b"")
    with pytest.warns(UserWarning):
        again = replay(tmp_path, chunk=5)
    with pytest.warns(UserWarning, match="lacks 0 chunks and 3 records of others"):
        again.load_state_dict(state)
    for time in range(8, 14):
        step(again, time, every=100)
    seen = check(again.sample(256, 12), every=100)
    assert (0, 8) in seen and (0, 6) not in seen and (1, 6) in seen


def test_episodes_come_whole(tmp_path: Path) -> None:
    store = replay(tmp_path, chunk=7)
    for time in range(25):
        step(store, time)
    store.add_episode(episode(9, 4))
    found = [(n, int(x["image"][0, 0, 0, 0]), len(x)) for n, x in store.episodes()]
    assert found == [(0, 0, 10), (1, 1, 10), (2, 0, 10), (3, 1, 10), (4, 0, 5), (5, 1, 5), (6, 9, 4)]
    assert [n for n, _ in store.episodes(newest=3, ended=True)] == [2, 3, 6]
    for _, records in store.episodes():
        assert records["is_first"].tolist() == [True] + [False] * (len(records) - 1)
        assert (np.diff(records["reward"]) == 1).all()


def test_a_slow_stream_stays_in_order(tmp_path: Path) -> None:
    store = replay(tmp_path, capacity=64, chunk=4)
    for time in range(200):
        store.add(0, stretch(0, time, time + 1))
        if time % 50 == 0:
            store.add(1, stretch(1, time // 50, time // 50 + 1))
    check(store.sample(64, 20))
    state = saved(store)
    store.commit()
    again = replay(tmp_path, capacity=64, chunk=4)
    again.load_state_dict(state)
    assert equal(store.sample(16, 9), again.sample(16, 9)) and len(again) == 64
