"""Frames of a film, one after another, and columns of a table. Films by PyAV, Parquet by pyarrow."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.formats.base import lacking, package, reading


def film(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds and (H, W, 3) uint8 of every frame, in the order in which they are shown.

    Raises:
        UserError: it is no film, or damaged.
    """
    import av  # which takes a while to load

    with reading(path, "a film"), av.open(str(path)) as container:
        if not container.streams.video:
            raise UserError(f"{path} has no pictures in it")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            yield frame.time or 0.0, frame.to_ndarray(format="rgb24")


def frames_in(path: Path) -> int:
    """How many frames a film has, as it says itself, or else by counting.

    Raises:
        UserError: it is no film, or damaged.
    """
    import av

    with reading(path, "a film"), av.open(str(path)) as container:
        said = container.streams.video[0].frames if container.streams.video else 0
    return said or sum(1 for _ in film(path))


def parquet_names(path: Path, what: str) -> list[str]:
    """Names of the columns of a Parquet file.

    Raises:
        UserError: pyarrow is not installed, or the file is none or damaged.
    """
    parquet = package("pyarrow.parquet", what)
    with reading(path, "Parquet"):
        return list(parquet.read_schema(path).names)


def parquet(path: Path, columns: Sequence[str], what: str) -> dict[str, list]:
    """Columns of a Parquet file, as lists of what Python has.

    Raises:
        UserError: pyarrow is not installed, the file is none, damaged or cut short, or it lacks a column.
    """
    names = parquet_names(path, what)
    if missing := [name for name in columns if name not in names]:
        raise lacking(path, missing, names, what)
    module = package("pyarrow.parquet", what)
    with reading(path, "Parquet"):
        table = module.read_table(path, columns=list(columns), partitioning=None)
        return {name: table[name].to_pylist() for name in columns}


def table(path: Path, what: str) -> dict[str, list]:
    """All columns of a ``.csv`` or ``.parquet`` file.

    Raises:
        UserError: it is damaged, or has lines of several lengths.
    """
    if path.suffix == ".parquet":
        return parquet(path, parquet_names(path, what), what)
    with reading(path, "CSV"), path.open(newline="") as file:
        names, *lines = [line for line in csv.reader(file) if line] or [[]]
    if wrong := [number for number, line in enumerate(lines, 2) if len(line) != len(names)]:
        raise UserError(f"{path}, line {wrong[0]}, has not as many values as the {len(names)} names of the first line")
    return {name.strip(): [line[i] for line in lines] for i, name in enumerate(names)}


def numbers(path: Path, name: str, values: Sequence) -> np.ndarray:
    """A column as float64, (N,) or (N, ...).

    Raises:
        UserError: it holds something else.
    """
    try:
        return np.array([np.nan if x in ("", None) else x for x in values], np.float64)
    except (ValueError, TypeError) as cause:
        raise UserError(f"{path} has a column {name} that does not hold numbers, all of one size") from cause
