"""HDF5 files, read lazily and with one line for what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel.experience.formats.base import lacking, package, reading

_BLOCK = 64  # images that are read at once


@contextmanager
def opened(path: Path, what: str) -> Iterator[Any]:
    """An ``h5py.File``, for reading.

    Raises:
        UserError: h5py is not installed, or the file is damaged, cut short, or of another kind.
    """
    h5py = package("h5py", what)
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        yield file


def wanted(path: Path, group: Any, names: Iterable[str], what: str) -> None:
    """Find that a group has what it must have.

    Raises:
        UserError: it lacks something; says what it has.
    """
    if missing := [name for name in names if name not in group]:
        raise lacking(path, missing, group.keys(), what)


def rows(path: Path, dataset: Any, begin: int, end: int) -> Iterator[np.ndarray]:
    """Rows [begin, end) of a dataset, a few at a time.

    Raises:
        UserError: they cannot be read, or there are fewer.
    """
    for first in range(begin, end, _BLOCK):
        with reading(path, "HDF5"):
            block = dataset[first : min(end, first + _BLOCK)]
        yield from block
