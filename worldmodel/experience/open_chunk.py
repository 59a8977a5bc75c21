"""The chunk of a stream that is not full yet, in memory. Legend: L records."""

from __future__ import annotations

import numpy as np

from worldmodel.experience.chunk_folder import ChunkFolder
from worldmodel.experience.chunks import Chunk, ChunkName, Span, spans_of


class OpenChunk:
    """Records of a stream that no full chunk holds yet.

    Args:
        dtype: fields of a record, its episode among them.
        size: records that it has room for.
        stream: whose records they are.
        start: records of the stream before it.
        episode: the number of the episode that the stream is in; -1 if in none.
    """

    def __init__(self, dtype: np.dtype, size: int, stream: int, start: int, episode: int = -1) -> None:
        self._columns = {name: np.empty((size, *dtype[name].shape), dtype[name].base) for name in dtype.names or ()}
        self._size = size
        self.stream, self.start, self.episode = stream, start, episode
        self.number, self.length = -1, 0
        self.saved: Chunk | None = None  # what of it is on the disk

    @property
    def name(self) -> ChunkName:
        return ChunkName(self.number, self.stream, self.start, self.length)

    @property
    def room(self) -> int:
        return self._size - self.length

    @property
    def is_full(self) -> bool:
        return self.length >= self._size

    @property
    def spans(self) -> list[Span]:
        return spans_of(self.rows()["episode"])

    def rows(self) -> dict[str, np.ndarray]:
        """Its columns (L, ...), no copies."""
        return {name: column[: self.length] for name, column in self._columns.items()}

    def append(self, records: np.ndarray, episode: np.ndarray) -> None:
        """Take records (L,) and the numbers of their episodes (L,)."""
        until = self.length + len(records)
        for name in records.dtype.names or ():
            self._columns[name][self.length : until] = records[name]
        self._columns["episode"][self.length : until] = episode
        self.length, self.episode = until, int(episode[-1])

    def save(self, folder: ChunkFolder) -> Chunk:
        """Write it as far as it has come, in the place of what was written of it before.

        Raises:
            UserError: the disk is full.
        """
        if self.saved is None or self.saved.length != self.length:
            self.saved = folder.write(self.name, self.rows(), instead_of=self.saved)
        return self.saved

    def restore(self, folder: ChunkFolder, source: Chunk, length: int) -> None:
        """Become the first ``length`` records of a chunk, which may have grown since it was that long."""
        self.number, self.length, self.saved = source.name.number, length, source
        folder.files.read(source, 0, self.rows())

    def restart(self) -> None:
        """Begin the chunk that follows."""
        self.start += self.length
        self.number, self.length, self.saved = -1, 0, None
