"""The chunks of a replay on the disk: checked when they are found, and deleted when nobody wants them any more."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.chunks import Chunk, ChunkName, Descriptors, read_chunk, write_chunk

_OLD = re.compile(r"\d{8,}-\d+\.npy")


class ChunkFolder:
    """A directory of chunks of one kind of record.

    Args:
        path: of the directory; made if missing.
        dtype: fields of a record, its episode among them.
    """

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.path, self._dtype = path, dtype
        self.files = Descriptors()
        self._checked: dict[Path, Chunk | None] = {}  # None where damaged
        self._leaving: list[Path] = []
        self._others: dict[Path, UserError] = {}  # of another shape
        self._told: set[Path] = set()  # of which it was said that they are no files
        path.mkdir(parents=True, exist_ok=True)

    def names(self) -> dict[Path, ChunkName]:
        """The files that are named as chunks, in order.

        Raises:
            UserError: there are episodes of an older version.
        """
        names = {}
        for path in self.path.iterdir():
            if name := ChunkName.of(path):
                if path.is_file():
                    names[path] = name
                elif path not in self._told:  # a pipe would be waited for
                    self._told.add(path)
                    warnings.warn(f"skipping {path}, which is no file", stacklevel=3)
            elif _OLD.fullmatch(path.name):
                raise UserError(
                    f"the replay {self.path} holds episodes of an older version ({path.name}), which cannot be read: "
                    "use another run folder, or move them away"
                )
        return dict(sorted(names.items(), key=lambda item: item[1]))

    def ends(self) -> dict[int, int]:
        """How many records of each stream there have been."""
        ends: dict[int, int] = {}
        for name in self.names().values():
            ends[name.stream] = max(ends.get(name.stream, 0), name.start + name.length)
        return ends

    def find(self) -> dict[int, Chunk]:
        """The sound chunks by number, the longest where there are several of one. A file is checked once.

        Raises:
            UserError: all are of another image or action shape.
        """
        found: dict[int, Chunk] = {}
        self._others = {}
        for path, name in self.names().items():  # of one number, the longest last
            if path not in self._checked:
                self._checked[path] = self._check(path, name)
            if (chunk := self._checked[path]) is not None:
                found[name.number] = chunk
        for path, cause in self._others.items():
            if not found:  # it is another run's folder
                raise cause
            warnings.warn(f"skipping {path}, whose images or actions are of another shape", stacklevel=3)
        return found

    def write(self, name: ChunkName, columns: Mapping[str, np.ndarray], instead_of: Chunk | None = None) -> Chunk:
        """Write a chunk, in the place of an older write of it.

        Raises:
            UserError: the disk is full.
        """
        chunk = self._checked[self.path / str(name)] = write_chunk(self.path, name, columns)
        if instead_of is not None and instead_of.path != chunk.path:
            self.delete(instead_of.path)
        return chunk

    def delete(self, path: Path) -> None:
        """Delete a file, and close it: an open one keeps its space."""
        self.files.close(path)
        self._checked.pop(path, None)
        path.unlink(missing_ok=True)

    def delete_later(self, path: Path) -> None:
        """Delete a file at the next ``commit``."""
        self.files.close(path)
        self._leaving.append(path)

    def commit(self) -> None:
        """Delete what was to be deleted later."""
        for path in self._leaving:
            self.delete(path)
        self._leaving = []

    def keep(self, chunks: Iterable[Chunk], following: int, first: int) -> None:
        """Delete all from number ``following`` on, and other writes of ``chunks``; those before ``first`` later.

        What is damaged and lies between stays.
        """
        kept = {chunk.path: chunk.name.number for chunk in chunks}
        numbers = set(kept.values())
        self._leaving = []
        for path, name in self.names().items():
            if path in kept:
                continue
            if name.number >= following or name.number in numbers:
                self.delete(path)
            elif name.number < first:
                self.delete_later(path)

    def _check(self, path: Path, name: ChunkName) -> Chunk | None:
        try:
            return read_chunk(path, name, self._dtype)
        except FileNotFoundError:  # another process trains on
            return None
        except UserError as cause:
            self._others[path] = cause
            return None
        except ValueError as cause:
            warnings.warn(f"skipping the damaged replay file {path}: {cause}", stacklevel=4)
            return None
