"""Time to sample sequences from a store larger than the memory allowed: ``python -m benchmarks.replay``.

The sampling process may hold ``--memory`` MB of its own (RLIMIT_DATA), less than the store. The system's page cache is
not part of that limit, so there are two figures: ``ms_per_sample`` with the store in the page cache as far as it fits,
``ms_per_sample_cold`` with every page dropped from it before each sample. ``open_seconds`` is what opening it takes,
which compares all of it with its checksums, from the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from worldmodel.experience.replay import Replay

LENGTH, ACTION = 501, 6


def build(directory: Path, size: int, megabytes: int) -> Replay:
    """A store of random images."""
    replay = Replay(directory, image_shape=(3, size, size), action_size=ACTION)
    records = np.zeros(LENGTH, replay.dtype)
    records["is_first"][0] = True
    rng = np.random.default_rng(0)
    records["image"] = rng.integers(0, 256, records["image"].shape, np.uint8)
    while len(replay) * replay.dtype.itemsize < megabytes * 2**20:
        replay.add_episode(records)
    return replay


def drop(directory: Path) -> None:
    """Drop a store from the page cache."""
    for path in directory.glob("*.npz"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def sample(replay: Replay, batch: int, length: int) -> float:
    """Milliseconds of one sample."""
    begin = time.perf_counter()
    replay.sample(batch, length)
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=int, default=1500, help="size of the store in MB")
    parser.add_argument("--memory", type=int, default=1000, help="private memory of this process in MB")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--size", type=int, default=64, help="image size in pixels")
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (options.memory * 2**20,) * 2)
    with tempfile.TemporaryDirectory() as folder:
        replay = build(Path(folder), options.size, options.store)
        shape = (options.batch, options.length)
        for _ in range(options.samples):  # map the files, fill the page cache
            replay.sample(*shape)
        warm = [sample(replay, *shape) for _ in range(options.samples)]
        cold = []
        for _ in range(10):
            drop(Path(folder))
            cold.append(sample(replay, *shape))
        for _ in range(2):
            begin = time.perf_counter()
            Replay(folder, image_shape=(3, options.size, options.size), action_size=ACTION)
            seconds = time.perf_counter() - begin
        store = len(replay) * replay.dtype.itemsize / 2**20
    print(f"store {store:.0f} MB, private memory limited to {options.memory} MB, page cache not limited")
    summary = {
        "ms_per_sample": round(float(np.median(warm)), 3),
        "ms_per_sample_p95": round(float(np.quantile(warm, 0.95)), 3),
        "ms_per_sample_cold": round(float(np.median(cold)), 2),
        "open_seconds": round(seconds, 2),
        "batch": options.batch,
        "length": options.length,
        "store_mb": round(store),
        "memory_mb": options.memory,
        "core": core,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
