"""All global random states at once. The replay and the environments keep their own."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from worldmodel.errors import UserError


def random_state() -> dict[str, Any]:
    """States of Python's, numpy's and torch's generators: tensors, numbers, strings and lists only."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    vector = torch.from_numpy(np.asarray(keys).astype(np.int64))
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), vector, int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Return to a state given by ``random_state``."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"]:
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Inside, generators start from ``seed``; outside, nothing was drawn."""
    saved = random_state()
    seed_all(seed)
    try:
        yield
    finally:
        set_random_state(saved)


def seed_for(seed: int, rank: int, purpose: str) -> int:
    """A seed in [0, 2^32) of its own for each purpose on each rank.

    Raises:
        UserError: the seed is negative.
    """
    if seed < 0:
        raise UserError(f"seed is {seed}: it must be 0 or more")
    return int(np.random.SeedSequence([seed, rank, zlib.crc32(purpose.encode())]).generate_state(1)[0])


def seed_all(seed: int) -> None:
    """Let Python's, numpy's and torch's generators start from ``seed``."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
