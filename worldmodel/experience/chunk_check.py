"""Whether what a file of records holds are records. Legend: L records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from worldmodel.errors import UserError

_EPISODES = 2**48  # more than there will be


def compare_shapes(shapes: Mapping[str, tuple], length: int, dtype: np.dtype, folder: Path) -> None:
    """Compare shapes and types of the columns with those of records (L,).

    Raises:
        UserError: they are of other images or actions.
        ValueError: something else is different.
    """
    wanted = {column: ((length, *dtype[column].shape), dtype[column].base) for column in shapes}
    if any(shapes[column][0][1:] != wanted[column][0][1:] for column in ("image", "action")):
        images, actions = (shapes[column][0][1:] for column in ("image", "action"))
        raise UserError(
            f"the replay {folder} holds images {images} and actions {actions}, this run {dtype['image'].shape} and "
            f"{dtype['action'].shape}: use another run folder"
        )
    for column, found in shapes.items():
        if found != wanted[column]:
            raise ValueError(f"holds {column} {found[0]} of {found[1]}, not {wanted[column][0]} of {wanted[column][1]}")


def check_numbers(file: IO[bytes], offsets: Mapping[str, int], length: int, dtype: np.dtype) -> np.ndarray:
    """The numbers of the episodes (L,) of records whose numbers are known and whose flags are flags.

    Raises:
        ValueError: others are not.
    """
    episodes = np.empty(0, np.int64)
    for column, offset in offsets.items():
        kind, count = dtype[column].base, length * int(np.prod(dtype[column].shape, dtype=np.int64))
        if column == "image":
            continue
        file.seek(offset)
        values = np.frombuffer(file.read(count * kind.itemsize), "u1" if kind.kind == "b" else kind)
        if kind.kind == "f" and not are_known(column, values):
            raise ValueError(f"holds a {column} that is not finite")
        if kind.kind == "b" and values.max() > 1:
            raise ValueError(f"holds a {column} that is neither true nor false")
        if column == "episode":
            if values.min() < 0 or values.max() >= _EPISODES or (np.diff(values) < 0).any():
                raise ValueError("holds episodes that do not count up")
            episodes = values
    return episodes


def are_known(column: str, values: np.ndarray) -> bool:
    """Whether all are finite; a reward that nobody has recorded may be NaN."""
    wrong = np.isinf(values) if column == "reward" else ~np.isfinite(values)
    return not wrong.any()
