"""How the chunks of a replay lie end to end, for sampling and for reading episodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from worldmodel.experience.chunks import WHOLE, Chunk
from worldmodel.experience.open_chunk import OpenChunk


@dataclass(frozen=True, slots=True)
class Piece:
    """Records [begin, end) of a chunk."""

    chunk: Chunk | OpenChunk
    begin: int
    end: int
    is_cut: bool  # they do not continue the records that lie before them

    def __len__(self) -> int:
        return self.end - self.begin


class Layout:
    """Chunks by stream and then in time, end to end, the last before the first.

    Open ones may grow, and the oldest may lose records at its beginning: ``measure`` says so.

    Args:
        chunks: those that hold anything, in any order.
    """

    def __init__(self, chunks: Iterable[Chunk | OpenChunk]) -> None:
        self._chunks = sorted(chunks, key=lambda chunk: (chunk.name.stream, chunk.name.number))
        names = [chunk.name for chunk in self._chunks]
        self._is_cut = [True, *(not a.leads_to(b) for a, b in pairwise(names))]
        closed = [i for i, chunk in enumerate(self._chunks) if isinstance(chunk, Chunk)]
        self._oldest = min(closed, key=lambda i: names[i].number, default=0)
        self._lengths = np.array([name.length for name in names], np.int64)
        self._growing = [i for i, chunk in enumerate(self._chunks) if isinstance(chunk, OpenChunk)]
        self.measure(0)

    def measure(self, skip: int) -> None:
        """Note how many records there are now; the oldest closed chunk is without its first ``skip``."""
        for i in self._growing:
            self._lengths[i] = self._chunks[i].length
        lengths = self._lengths.copy()
        if len(lengths):
            lengths[self._oldest] -= skip
        self._skip, self._ends = skip, np.cumsum(lengths)

    def pieces(self, start: int, length: int) -> Iterator[Piece]:
        """What makes ``length`` records from record ``start`` on. The first piece is never cut."""
        order, is_cut = int(np.searchsorted(self._ends, start, side="right")), False
        begin = int(self._lengths[order]) - int(self._ends[order]) + start
        while length:
            end = min(int(self._lengths[order]), begin + length)
            yield Piece(self._chunks[order], begin, end, is_cut)
            length -= end - begin
            order = (order + 1) % len(self._chunks)
            begin, is_cut = self._first(order), self._is_cut[order]

    def episodes(self) -> list[tuple[int, list[Piece], bool]]:
        """Number and pieces of each episode, in the order they began, and whether nothing follows it in its stream.

        One of which a chunk is lost comes in two parts.
        """
        found: list[tuple[int, list[Piece], bool]] = []
        for order, chunk in enumerate(self._chunks):
            name, following = chunk.name, self._chunks[order + 1].name if order + 1 < len(self._chunks) else None
            ends = name.stream != WHOLE and (following is None or following.stream != name.stream)
            for span in chunk.spans:
                if (begin := max(span.begin, self._first(order))) >= span.end:
                    continue
                piece = Piece(chunk, begin, span.end, self._is_cut[order] and span.begin == 0)
                before = [] if piece.is_cut or not found or found[-1][0] != span.episode else found.pop()[1]
                found.append((span.episode, [*before, piece], ends and span.end == name.length))
        return sorted(found, key=lambda episode: episode[0])

    def _first(self, order: int) -> int:
        return self._skip if order == self._oldest else 0
