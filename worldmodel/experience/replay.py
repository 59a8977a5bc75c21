"""Episodes on disk, one plain .npy file each, sampled as sequences through memory maps."""

from __future__ import annotations

import errno
import io
import json
import mmap
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from worldmodel.errors import UserError
from worldmodel.types import SequenceBatch

_NAME = re.compile(r"(\d{8,})-(\d+)\.npy")
_OPEN_FILES = 16384  # well below Linux's 65530 maps
_FEATURES = "features.json"


class Features(NamedTuple):
    """What is stored with each frame: the output of an encoder's frozen part."""

    shape: tuple[int, ...]  # of one frame's
    identity: str  # of the frozen part, ``Encoder.identity``


def record_dtype(
    image_shape: tuple[int, int, int], action_size: int, feature_shape: tuple[int, ...] | None = None
) -> np.dtype:
    """One record of ``worldmodel.types``: what was seen, and what led there. No features without a shape of theirs."""
    fields: list[tuple] = [("image", "u1", image_shape), ("action", "<f4", (action_size,)), ("reward", "<f4")]
    fields += [("is_first", "?"), ("is_terminal", "?")]
    return np.dtype(fields if feature_shape is None else [*fields, ("features", "<f4", feature_shape)])


def stored_features(directory: Path | str) -> Features | None:
    """What a replay's directory says of the features in it; None where there are none.

    Raises:
        UserError: what it says cannot be read.
    """
    path = Path(directory) / _FEATURES
    if not path.exists():
        return None
    try:
        held = json.loads(path.read_text())
        return Features(tuple(held["shape"]), held["identity"])
    except (ValueError, KeyError, TypeError) as cause:
        raise UserError(f"{path} is damaged: restore it, or use another run folder") from cause


class Replay:
    """A bounded store of whole episodes. A kill at any moment loses at most the episode not yet added.

    Sampling draws uniform starts over the episodes in the order they came, end to end; a sequence may run on into
    the next episode (``is_first`` marks it), and from the newest on into the oldest.

    Args:
        directory: holds the files ``{episode}-{records}.npy``; made if missing.
        image_shape: (3, H, W).
        action_size: A.
        capacity: records to sample from; the oldest episodes leave when there are more.
        seed: of the sampling.
        features: what is stored with each frame, nothing more if None. ``features.json`` in the directory says it too.

    Raises:
        UserError: the directory holds records of another image or action shape, or other features.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        image_shape: tuple[int, int, int],
        action_size: int,
        capacity: int = 1_000_000,
        seed: int = 0,
        features: Features | None = None,
    ) -> None:
        if capacity < 1:
            raise UserError(f"the replay's capacity is {capacity}: it must be 1 or more")
        self.directory, self.capacity, self.features = Path(directory), capacity, features
        self.dtype = record_dtype(image_shape, action_size, None if features is None else features.shape)
        self._rng = np.random.default_rng(seed)
        self._open = lru_cache(maxsize=_OPEN_FILES)(self._map)
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob("*.tmp"):
            leftover.unlink()
        files = sorted(self._files())
        self._agree(empty=not files)
        self._lengths: dict[int, int] = {index: length for index, length, path in files if self._is_sound(path, length)}
        self._next = files[-1][0] + 1 if files else 0
        self._first = 0
        self._evict()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def num_episodes(self) -> int:
        """Episodes to sample from."""
        return len(self._lengths)

    def add_episode(self, records: np.ndarray) -> None:
        """Store one episode: (L,) of ``dtype``. It is safe on the disk on return.

        Raises:
            UserError: the disk is full; everything stored before is intact.
        """
        if records.dtype != self.dtype or records.ndim != 1 or not len(records) or not records["is_first"][0]:
            raise ValueError(f"an episode is (L,) of {self.dtype} and begins with is_first, not {records.dtype}")
        content = io.BytesIO()  # np.save on a file hides the reason when the disk is full
        np.save(content, records, allow_pickle=False)
        _write(self.directory / f"{self._next:08d}-{len(records)}.npy", content.getbuffer())
        self._lengths[self._next] = len(records)
        self._next += 1
        self._evict()

    def sample(self, batch: int, length: int) -> SequenceBatch:
        """Draw ``batch`` sequences of ``length`` records.

        Raises:
            UserError: nothing is stored yet.
        """
        if not len(self):
            raise UserError(f"the replay {self.directory} is empty: collect a whole episode before training")
        out = {
            name: np.empty((batch, length, *self.dtype[name].shape), self.dtype[name].base)
            for name in self.dtype.names or ()
        }
        episode = np.empty((batch, length), np.int64)
        rows = [list(self._pieces(int(start), length)) for start in self._rng.integers(len(self), size=batch)]
        for _, records, _ in (piece for pieces in rows for piece in pieces):
            _read_ahead(records)  # ask for all of them before waiting for the first
        for row, pieces in enumerate(rows):
            for index, records, at in pieces:
                where = slice(at, at + len(records))
                episode[row, where] = index
                for name, array in out.items():
                    array[row, where] = records[name]
        tensors = {name: torch.from_numpy(array) for name, array in out.items()}
        return SequenceBatch(**tensors, episode=torch.from_numpy(episode))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, sampling draws what it likes; outside, nothing was drawn."""
        state = self._rng.bit_generator.state
        try:
            yield
        finally:
            self._rng.bit_generator.state = state

    def state_dict(self) -> dict[str, Any]:
        """Which episodes there are, and the state of the sampling: ints and strings only."""
        return {"first": self._first, "next": self._next, "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a checkpoint: whatever was added after it is deleted.

        Raises:
            UserError: episodes that the checkpoint knew are gone from the directory.
        """
        for index, _, path in list(self._files()):
            if index >= state["next"]:
                path.unlink()
        sound = {index: length for index, length, path in sorted(self._files()) if self._is_sound(path, length)}
        self._lengths = {index: length for index, length in sound.items() if index >= state["first"]}
        if state["next"] > state["first"] and not self._lengths:
            raise UserError(f"the replay {self.directory} has none of its episodes: restore the folder or start anew")
        self._first, self._next = state["first"], state["next"]
        self._rng.bit_generator.state = state["rng"]
        self._open.cache_clear()
        self._evict()

    def commit(self) -> None:
        """Delete what has left the sampling. Call it once a checkpoint is safe: older ones then lose these files."""
        for index, _, path in list(self._files()):
            if index < self._first:
                path.unlink()

    def _agree(self, empty: bool) -> None:
        """Find the features that are asked for in the directory; one that is ``empty`` takes any."""
        asked, held, path = self.features, stored_features(self.directory), self.directory / _FEATURES
        if asked == held:
            return
        if not empty:
            raise UserError(f"the replay {self.directory} {_other(held, asked)}")
        path.unlink(missing_ok=True)
        if asked is not None:
            _write(path, json.dumps(asked._asdict()).encode())

    def _evict(self) -> None:
        """Let the oldest episodes go while there are more records than ``capacity``; one always stays."""
        surplus = sum(self._lengths.values()) - self.capacity
        for index in list(self._lengths)[:-1]:
            if surplus <= 0:
                break
            surplus -= self._lengths.pop(index)
        self._first = next(iter(self._lengths), self._first)
        self._live = np.fromiter(self._lengths, np.int64, len(self._lengths))
        self._ends = np.cumsum(np.fromiter(self._lengths.values(), np.int64, len(self._lengths)))

    def _pieces(self, start: int, length: int) -> Iterator[tuple[int, np.ndarray, int]]:
        """(episode, records, place) that together make ``length`` records from ``start`` on."""
        at, order = 0, int(np.searchsorted(self._ends, start, side="right"))
        offset = start - (int(self._ends[order - 1]) if order else 0)
        while at < length:
            index = int(self._live[order])
            records = self._open(index)[offset : offset + length - at]
            yield index, records, at
            at, offset, order = at + len(records), 0, (order + 1) % len(self._live)

    def _map(self, index: int) -> np.memmap:
        path = self.directory / f"{index:08d}-{self._lengths[index]}.npy"
        records = np.lib.format.open_memmap(path, mode="r")
        _memory(records).madvise(mmap.MADV_RANDOM)  # or each fault reads megabytes around it
        return records

    def _files(self) -> Iterator[tuple[int, int, Path]]:
        for path in self.directory.iterdir():
            if match := _NAME.fullmatch(path.name):
                yield int(match[1]), int(match[2]), path

    def _is_sound(self, path: Path, length: int) -> bool:
        try:
            records = np.lib.format.open_memmap(path, mode="r")
            complete = path.stat().st_size == records.offset + records.nbytes
        except (OSError, ValueError) as cause:
            reason = " ".join(str(cause).split())
        else:
            if records.dtype.names == self.dtype.names and records.dtype != self.dtype:
                raise UserError(
                    f"the replay {self.directory} holds images {records.dtype['image'].shape} and actions "
                    f"{records.dtype['action'].shape}, this run {self.dtype['image'].shape} and "
                    f"{self.dtype['action'].shape}: use another run folder"
                )
            if complete and records.shape == (length,) and records.dtype == self.dtype:
                return True
            reason = f"holds {records.shape} of {records.dtype.names or records.dtype}"
        warnings.warn(f"skipping the damaged replay file {path}: {reason[:120]}", stacklevel=3)
        return False


def _other(held: Features | None, asked: Features | None) -> str:
    """What is wrong, and what to do."""
    if held is None:
        return "holds no features: use another run folder, or set data.store_features to false"
    if asked is None:
        return f"holds features of {held.identity}: use another run folder, or set data.store_features to true"
    return (
        f"holds features {held.shape} of {held.identity}, this run's encoder makes {asked.shape} of {asked.identity}: "
        "use another run folder, or the encoder that they were made with"
    )


def _write(path: Path, content: bytes | memoryview) -> None:
    """Write a file of a replay. A kill leaves the whole of it or nothing."""
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # or a power cut may undo the rename
        finally:
            os.close(descriptor)
    except OSError as cause:
        temporary.unlink(missing_ok=True)
        if cause.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"the disk of {path.parent} is full: free some space, then resume the run") from cause


def _memory(records: np.ndarray) -> mmap.mmap:
    """The map below any view of a memory-mapped array."""
    base: Any = records
    while not isinstance(base, mmap.mmap):
        base = base.base
    return base


def _read_ahead(records: np.ndarray) -> None:
    memory = _memory(records)
    start = records.ctypes.data - np.frombuffer(memory, np.uint8).ctypes.data
    begin = start - start % mmap.PAGESIZE
    memory.madvise(mmap.MADV_WILLNEED, begin, start + records.nbytes - begin)
