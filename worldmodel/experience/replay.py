"""Experience on disk, in chunks as it comes, sampled as sequences along the streams that it came in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.errors import UserError
from worldmodel.experience.chunk_folder import ChunkFolder
from worldmodel.experience.chunks import WHOLE, Chunk, ChunkName, columns_of
from worldmodel.experience.layout import Layout, Piece
from worldmodel.experience.open_chunk import OpenChunk
from worldmodel.experience.records import Features, agree, check_records, record_dtype, stored_features
from worldmodel.types import SequenceBatch

__all__ = ["Features", "Replay", "record_dtype", "stored_features"]

_BYTES = 8 * 2**20  # of a chunk's records, at most


class Replay:
    """A bounded store of streams of records, one stream for each environment, and of whole episodes.

    A record can be sampled as soon as it is added. Records are kept in chunks, a file of ``chunk`` records each; the
    last chunk of a stream is open, and in memory: a kill loses what it got since ``flush`` or ``state_dict``.

    Sampling draws uniform starts over all records; streams lie end to end. A sequence goes along its stream, and so on
    into the next episode (``is_first`` marks it). Where a stream ends, or has lost a chunk, it goes on in what lies
    next, from the newest on into the oldest; ``is_first`` marks that place too.

    Args:
        directory: holds the chunks (see ``worldmodel.experience.chunks``); made if missing.
        image_shape: (3, H, W).
        action_size: A.
        capacity: records to sample from; the oldest leave when there are more, and their chunks leave the disk.
        seed: of the sampling.
        features: what is stored with each frame, nothing more if None. ``features.json`` in the directory says it too.
        vector_size: numbers beside each image; none if 0.
        chunk: records in a file, or fewer where that would be over 8 MiB or a sixteenth of the capacity.

    Raises:
        UserError: the directory holds records of other shapes, other features, or those of an older version.
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
        vector_size: int = 0,
        chunk: int = 512,
    ) -> None:
        if capacity < 1:
            raise UserError(f"the replay's capacity is {capacity}: it must be 1 or more")
        self.directory, self.capacity, self.features = Path(directory), capacity, features
        self.dtype = record_dtype(image_shape, action_size, features and features.shape, vector_size)
        self._stored = np.dtype([*((name, self.dtype[name]) for name in self.dtype.names or ()), ("episode", "<i8")])
        self._size = max(1, min(chunk, capacity // 16, _BYTES // self._stored.itemsize))
        self._rng = np.random.default_rng(seed)
        self._folder = ChunkFolder(self.directory, self._stored)
        self._open: dict[int, OpenChunk] = {}  # by stream
        self._layout: Layout | None = None
        names = self._folder.names()
        agree(self.directory, features, vector_size, empty=not names)
        self._next = self._known = max((name.number for name in names.values()), default=-1) + 1
        self._ends = self._folder.ends()
        self._total = self._skip = 0
        self._take(self._folder.find())
        self._next_episode = 1 + max((chunk.spans[-1].episode for chunk in self._chunks.values()), default=-1)
        self._evict()

    def __len__(self) -> int:
        return self._total - self._skip

    @property
    def num_episodes(self) -> int:
        """Episodes to sample from, those that are under way and what is left of the oldest among them."""
        return len({number for number, *_ in self._laid_out().episodes()})

    def add(self, stream: int, records: np.ndarray) -> None:
        """Go on with a stream, such as an environment's.

        Args:
            stream: its number, from 0 on.
            records: (L,) of ``dtype``; ``is_first`` begins an episode.

        Raises:
            ValueError: they are of another type, or not finite.
            UserError: the disk is full; everything stored before is intact.
        """
        check_records(records, self.dtype, stream)
        if stream not in self._open:  # what another process has stored in this stream is not continued
            start = self._ends[stream] + 1 if stream in self._ends else 0
            self._open[stream] = OpenChunk(self._stored, self._size, stream, start)
        chunk, at = self._open[stream], 0
        while at < len(records):
            if chunk.is_full:  # the disk was, too
                self._close(chunk)
            if not chunk.length:
                chunk.number, self._next, self._layout = self._next, self._next + 1, None
            some = records[at : at + chunk.room]
            chunk.append(some, self._number_episodes(some["is_first"], chunk.episode))
            at, self._total = at + len(some), self._total + len(some)
        if chunk.is_full:
            self._close(chunk)
        self._evict()

    def add_episode(self, records: np.ndarray) -> None:
        """Store a whole episode: (L,) of ``dtype``. It is safe on the disk on return.

        Raises:
            ValueError: they are of another type, hold numbers that are not finite, or begin nothing.
            UserError: the disk is full; everything stored before is intact.
        """
        check_records(records, self.dtype)
        if not records["is_first"][:1].any():
            raise ValueError("an episode is one record or more and begins with is_first")
        episode = self._number_episodes(records["is_first"], -1)
        name = ChunkName(self._next, WHOLE, 0, len(records))
        self._insert(self._folder.write(name, columns_of(records) | {"episode": episode}))
        self._next, self._total = self._next + 1, self._total + len(records)
        self._evict()

    def sample(self, batch: int, length: int) -> SequenceBatch:
        """Draw ``batch`` sequences of ``length`` records.

        Raises:
            UserError: nothing is stored yet.
        """
        if not len(self):
            raise UserError(f"the replay {self.directory} is empty: collect some records before training")
        names, layout = self._stored.names or (), self._laid_out()
        out = {name: np.empty((batch, length, *self._stored[name].shape), self._stored[name].base) for name in names}
        places: list[tuple[Piece, dict[str, np.ndarray]]] = []
        for row, start in enumerate(self._rng.integers(len(self), size=batch)):
            at = 0
            for piece in layout.pieces(int(start), length):
                until = at + len(piece)
                places.append((piece, {name: array[row, at:until] for name, array in out.items()}))
                at = until
        for piece, columns in places:  # ask the disk for all of them before waiting for the first
            chunk, begin = piece.chunk, piece.begin
            if isinstance(chunk, Chunk) and self._folder.files.read_now(chunk, "image", begin, columns["image"]):
                del columns["image"]
        for piece, columns in places:
            self._read(piece, columns)
            columns["is_first"][0] |= piece.is_cut
        return SequenceBatch(**{name: torch.from_numpy(array) for name, array in out.items()})

    def episodes(self, newest: int | None = None, ended: bool = False) -> Iterator[tuple[int, np.ndarray]]:
        """Episodes one by one, a number and records (L,) of ``dtype``, in the order they began.

        Args:
            newest: how many, all if None.
            ended: leave out what is the last of a stream so far, for it may be under way.
        """
        found = [(number, pieces) for number, pieces, is_last in self._laid_out().episodes() if not (ended and is_last)]
        for number, pieces in found if newest is None else found[max(0, len(found) - newest) :]:
            records, at = np.empty(sum(map(len, pieces)), self.dtype), 0
            for piece in pieces:
                until = at + len(piece)
                columns = columns_of(records[at:until])
                self._read(piece, columns)
                for name, column in columns.items():
                    records[name][at:until] = column
                at = until
            yield number, records

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, sampling draws what it likes; outside, nothing was drawn."""
        state = self._rng.bit_generator.state
        try:
            yield
        finally:
            self._rng.bit_generator.state = state

    def flush(self) -> None:
        """Bring the open chunks to the disk as well. They stay open, and end where they would have ended.

        Raises:
            UserError: the disk is full; everything stored before is intact.
        """
        for chunk in self._open.values():
            if chunk.length:
                chunk.save(self._folder)

    def state_dict(self) -> dict[str, Any]:
        """What there is to sample from, and the state of the sampling; the records themselves are flushed.

        Until ``commit``, nothing leaves the disk that this or the state before speaks of.

        Raises:
            UserError: the disk is full; everything stored before is intact.
        """
        self.flush()
        self._known = self._next
        return {
            "chunks": torch.tensor(list(self._chunks), dtype=torch.int64),
            "streams": [[c.stream, c.number, c.start, c.length, c.episode] for c in self._open.values()],
            "next": self._next,
            "next_episode": self._next_episode,
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a checkpoint: whatever was added after it is deleted.

        Raises:
            UserError: the records that the checkpoint knew are gone from the directory.
        """
        found, lost = self._folder.find(), 0
        self._open = {}
        for stream, number, start, length, episode in state["streams"]:
            chunk = OpenChunk(self._stored, max(self._size, length), stream, start=start, episode=episode)
            self._open[stream] = chunk
            source = found.pop(number, None) if length else None
            if source is not None and source.length >= length:
                chunk.restore(self._folder, source, length)
            else:
                chunk.start, lost = start + length, lost + length
        live = {number: found[number] for number in state["chunks"].tolist() if number in found}
        gone = len(state["chunks"]) - len(live)
        if (gone or lost) and not live and not any(chunk.length for chunk in self._open.values()):
            raise UserError(f"the replay {self.directory} has none of its records: restore the folder or start anew")
        if gone or lost:
            text = f"the replay {self.directory} lacks {gone} chunks and {lost} records of others"
            warnings.warn(f"{text} that the checkpoint knows: it goes on without them", stacklevel=2)
        self.flush()  # those that have grown since are again as long as they were, before anything is deleted
        self._take(live)
        saved = [chunk.saved for chunk in self._open.values() if chunk.saved is not None]
        self._folder.keep([*live.values(), *saved], following=state["next"], first=min(live, default=state["next"]))
        self._next, self._next_episode = state["next"], state["next_episode"]
        self._ends, self._known = self._folder.ends(), self._next
        self._rng.bit_generator.state = state["rng"]
        self._evict()

    def commit(self) -> None:
        """Delete what has left the sampling. Call it once the checkpoint is safe that ``state_dict`` was for."""
        self._folder.commit()

    def _number_episodes(self, is_first: np.ndarray, current: int) -> np.ndarray:
        """Numbers (L,) of the episodes of consecutive records, of which the first may be in ``current``."""
        begins = is_first.copy()
        begins[0] |= current < 0
        count = begins.cumsum()
        self._next_episode += int(count[-1])
        return np.where(count > 0, self._next_episode - count[-1] + count - 1, current)

    def _take(self, chunks: dict[int, Chunk]) -> None:
        """Let these be the full ones."""
        self._chunks, self._layout, self._skip = dict(sorted(chunks.items())), None, 0
        self._total = sum(x.length for x in chunks.values()) + sum(x.length for x in self._open.values())

    def _insert(self, chunk: Chunk) -> None:
        in_order = not self._chunks or next(reversed(self._chunks)) < chunk.name.number
        self._chunks[chunk.name.number] = chunk
        if not in_order:  # a slow stream's
            self._chunks = dict(sorted(self._chunks.items()))
        self._layout = None

    def _close(self, chunk: OpenChunk) -> None:
        self._insert(chunk.save(self._folder))
        chunk.restart()

    def _evict(self) -> None:
        """Let the oldest records go while there are more than ``capacity``; those of open chunks stay."""
        surplus = self._total - self.capacity
        while self._chunks and surplus >= (oldest := next(iter(self._chunks.values()))).length:
            number = oldest.name.number
            del self._chunks[number]
            self._layout = None
            self._total, surplus = self._total - oldest.length, surplus - oldest.length
            # a checkpoint may want it
            (self._folder.delete_later if number < self._known else self._folder.delete)(oldest.path)
        self._skip = max(0, surplus) if self._chunks else 0

    def _laid_out(self) -> Layout:
        if self._layout is None:
            self._layout = Layout([*self._chunks.values(), *(chunk for chunk in self._open.values() if chunk.length)])
        self._layout.measure(self._skip)
        return self._layout

    def _read(self, piece: Piece, out: dict[str, np.ndarray]) -> None:
        if isinstance(piece.chunk, OpenChunk):
            rows = piece.chunk.rows()
            for name, column in out.items():
                column[...] = rows[name][piece.begin : piece.end]
        else:
            self._folder.files.read(piece.chunk, piece.begin, out)
