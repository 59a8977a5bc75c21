"""Chunks of a replay: files of consecutive records of one stream, a column for each field of a record.

A chunk is an uncompressed ``.npz``, so numpy reads it, each column lies in one piece, and the archive's CRC-32 finds
flipped bytes. Legend: L records.
"""

from __future__ import annotations

import errno
import io
import os
import re
import struct
import weakref
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from worldmodel.errors import UserError, one_line
from worldmodel.experience.chunk_check import check_numbers, compare_shapes

WHOLE = -1  # the stream of episodes that are given at once
_NAME = re.compile(r"(\d{8,18})-(\d+|episode)-(\d+)-(\d+)\.npz")
_BLOCK = 2**20  # bytes


class ChunkName(NamedTuple):
    """What the name of a chunk's file says: ``{number}-{stream}-{start}-{length}.npz``."""

    number: int  # chunks count up in the order in which they were begun
    stream: int
    start: int  # records of the stream before this chunk
    length: int  # records in it

    @classmethod
    def of(cls, path: Path) -> ChunkName | None:
        """None where it is no chunk's."""
        found = _NAME.fullmatch(path.name)
        if found is None:
            return None
        stream = WHOLE if found[2] == "episode" else int(found[2])
        return cls(int(found[1]), stream, int(found[3]), int(found[4]))

    def leads_to(self, other: ChunkName) -> bool:
        """Whether the other chunk's records continue this one's."""
        return self.stream == other.stream and self.start + self.length == other.start

    def __str__(self) -> str:
        stream = "episode" if self.stream == WHOLE else self.stream
        return f"{self.number:08d}-{stream}-{self.start}-{self.length}.npz"


class Span(NamedTuple):
    """Records [begin, end) of a chunk, which are of one episode."""

    episode: int
    begin: int
    end: int


class Chunk(NamedTuple):
    """A file that holds what its name says."""

    path: Path
    name: ChunkName
    offsets: dict[str, int]  # where each column begins, in bytes
    spans: list[Span]  # its episodes in order

    @property
    def length(self) -> int:
        return self.name.length


def spans_of(episode: np.ndarray) -> list[Span]:
    """Where the episodes (L,) of consecutive records begin and end."""
    cuts = [0, *(np.flatnonzero(np.diff(episode)) + 1).tolist(), len(episode)]
    return [Span(int(episode[a]), a, b) for a, b in pairwise(cuts) if b > a]


def write_chunk(directory: Path, name: ChunkName, columns: Mapping[str, np.ndarray]) -> Chunk:
    """Write columns (L, ...). The file is whole and on the disk on return; a kill leaves all of it or nothing.

    Raises:
        UserError: the disk is full.
    """
    content = io.BytesIO()  # numpy hides the reason when the disk is full
    small_first = sorted(columns, key=lambda column: columns[column].nbytes)
    np.savez(content, **{column: columns[column] for column in small_first})  # type: ignore[arg-type]
    path = directory / str(name)
    write_durably(path, content.getbuffer())
    return Chunk(path, name, _offsets(content, list(columns)), spans_of(columns["episode"]))


def read_chunk(path: Path, name: ChunkName, dtype: np.dtype) -> Chunk:
    """Check every byte of a file.

    Args:
        path: of the file.
        name: what it says.
        dtype: fields of its records.

    Raises:
        ValueError: it is damaged, or holds something else; says what.
        UserError: its records are of another image or action shape.
        FileNotFoundError: it has just gone.
    """
    if not name.length:
        raise ValueError("holds nothing")
    try:
        with path.open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                shapes = {column: _check(archive, column) for column in dtype.names or ()}
            compare_shapes(shapes, name.length, dtype, path.parent)
            offsets = _offsets(file, list(shapes))
            return Chunk(path, name, offsets, spans_of(check_numbers(file, offsets, name.length, dtype)))
    except (FileNotFoundError, UserError):
        raise
    except Exception as cause:  # an archive with flipped bytes may raise anything
        raise ValueError(one_line(cause)) from cause


def columns_of(records: np.ndarray) -> dict[str, np.ndarray]:
    """The fields of structured records (L,), each contiguous."""
    return {name: np.ascontiguousarray(records[name]) for name in records.dtype.names or ()}


class Descriptors:
    """The files that are open for reading, ``most`` at most: those read last.

    Args:
        most: well below the usual limit of 1,024 open files, and below one of 256.
    """

    def __init__(self, most: int = 96) -> None:
        self._most = most
        self._open: OrderedDict[Path, int] = OrderedDict()
        weakref.finalize(self, _close_all, self._open)

    def read(self, chunk: Chunk, begin: int, out: Mapping[str, np.ndarray]) -> None:
        """Read columns ``out``, each contiguous (L, ...), from record ``begin`` of a chunk on.

        Raises:
            UserError: the file has gone, or was cut short.
        """
        try:
            descriptor = self._descriptor(chunk.path)
        except FileNotFoundError as cause:
            raise UserError(f"{chunk.path} has gone: does another process use this replay?") from cause
        for column, array in out.items():
            place, left = chunk.offsets[column] + begin * array[:1].nbytes, memoryview(array.data).cast("B")
            while left:  # a system call reads 2 GiB at most
                count = os.preadv(descriptor, [left], place)
                if not count:
                    raise UserError(f"{chunk.path} was cut short while it was in use: resume the run")
                place, left = place + count, left[count:]

    def read_now(self, chunk: Chunk, column: str, begin: int, out: np.ndarray) -> bool:
        """Read a column if the system has it in memory; else have it fetched, and do not wait for it.

        Returns:
            Whether ``out`` was read.
        """
        try:
            descriptor = self._descriptor(chunk.path)
        except FileNotFoundError:
            return False  # read will say so
        place = chunk.offsets[column] + begin * out[:1].nbytes
        with suppress(OSError, AttributeError):  # not in memory, or a system that cannot do that
            if os.preadv(descriptor, [out.data], place, os.RWF_NOWAIT) == out.nbytes:
                return True
        _advise(descriptor, place, out.nbytes, "POSIX_FADV_WILLNEED")
        return False

    def close(self, path: Path) -> None:
        """Close a file if it is open: one that is deleted takes space for as long as it is."""
        if (descriptor := self._open.pop(path, None)) is not None:
            os.close(descriptor)

    def _descriptor(self, path: Path) -> int:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        descriptor = self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        _advise(descriptor, 0, 0, "POSIX_FADV_RANDOM")  # or each read fetches what lies around it
        if len(self._open) > self._most:
            self.close(next(iter(self._open)))
        return descriptor


def write_durably(path: Path, content: bytes | memoryview) -> None:
    """Write a file of a replay. A kill leaves the whole of it or nothing.

    Raises:
        UserError: the disk is full.
    """
    temporary = path.with_name("unfinished.tmp")  # what a kill leaves is written over
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
        if cause.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(f"the disk of {path.parent} is full: free some space, then resume the run") from cause


def _close_all(descriptors: OrderedDict[Path, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


def _advise(descriptor: int, begin: int, size: int, what: str) -> None:
    if hasattr(os, "posix_fadvise"):  # not everywhere
        os.posix_fadvise(descriptor, begin, size, getattr(os, what))


def _check(archive: zipfile.ZipFile, column: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a column. Reading it to its end compares its checksum."""
    info = archive.getinfo(f"{column}.npy")
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError("is compressed")
    with archive.open(info) as member:
        shape, dtype = _header(member)
        if info.file_size != member.tell() + int(np.prod(shape)) * dtype.itemsize:
            raise ValueError(f"{column} is not as long as it says")
        while member.read(_BLOCK):
            pass
    return shape, dtype


def _offsets(file: IO[bytes], columns: list[str]) -> dict[str, int]:
    """Where the columns of an archive begin, in bytes."""
    found = {}
    with zipfile.ZipFile(file) as archive:
        for column in columns:
            info = archive.getinfo(f"{column}.npy")
            with archive.open(info) as member:
                _header(member)
                header = member.tell()
            file.seek(info.header_offset + 26)
            name, extra = struct.unpack("<HH", file.read(4))  # lengths, in the local header of 30 bytes
            found[column] = info.header_offset + 30 + name + extra + header
    return found


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    if np.lib.format.read_magic(member) != (1, 0):
        raise ValueError("is of an unknown version")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(member)
    if is_fortran:
        raise ValueError("has its columns in another order")
    return shape, dtype
