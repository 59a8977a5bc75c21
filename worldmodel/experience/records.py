"""What a record of a replay is made of, and what a replay's folder says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.chunk_check import are_known
from worldmodel.experience.chunks import ChunkName, write_durably

_FEATURES = "features.json"


class Features(NamedTuple):
    """What is stored with each frame: the output of an encoder's frozen part."""

    shape: tuple[int, ...]  # of one frame's
    identity: str  # of the frozen part, ``Encoder.identity``


def record_dtype(
    image_shape: tuple[int, int, int],
    action_size: int,
    feature_shape: tuple[int, ...] | None = None,
    vector_size: int = 0,
) -> np.dtype:
    """One record of ``worldmodel.types``: what was seen, and what led there; the last two if they have a size."""
    fields: list[tuple] = [("image", "u1", image_shape), ("action", "<f4", (action_size,)), ("reward", "<f4")]
    fields += [("is_first", "?"), ("is_terminal", "?")]
    fields += [] if feature_shape is None else [("features", "<f4", feature_shape)]
    return np.dtype([*fields, ("vector", "<f4", (vector_size,))] if vector_size else fields)


def check_records(records: np.ndarray, dtype: np.dtype, stream: int = 0) -> None:
    """Look at records (L,) before they are stored.

    Raises:
        ValueError: they are not (L,) of ``dtype``, or hold numbers that are not finite; or there is no such stream.
    """
    if stream < 0:
        raise ValueError(f"records go to a stream from 0 on, not to {stream}")
    if not isinstance(records, np.ndarray) or records.ndim != 1:
        raise ValueError(f"records are an array (L,), got {getattr(records, 'shape', type(records).__name__)}")
    if records.dtype != dtype:
        raise ValueError(f"records are {_fields(dtype)}, got {_fields(records.dtype)}")
    for name in records.dtype.names or ():
        if dtype[name].base.kind == "f" and not are_known(name, records[name]):
            raise ValueError(f"a record's {name} is not finite: float32 holds numbers up to 3.4e38")


def _fields(dtype: np.dtype) -> str:
    """What they hold, in few words."""
    return ", ".join(f"{x} {dtype[x].base}{list(dtype[x].shape) or ''}" for x in dtype.names or ()) or str(dtype)


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


def stored_shapes(directory: Path | str) -> tuple[tuple[int, int, int], int]:
    """Image shape (3, H, W) and action size of the records in a replay's directory.

    Raises:
        UserError: there are none that can be read.
    """
    for path in sorted(path for path in Path(directory).glob("*.npz") if ChunkName.of(path)):
        try:
            with np.load(path, allow_pickle=False) as columns:
                _, channels, height, width = columns["image"].shape
                return (channels, height, width), columns["action"].shape[1]
        except Exception:  # damaged, in one of many ways
            continue
    raise UserError(f"the replay {directory} is empty: collect some records first")


def stored_vector_size(directory: Path | str) -> int | None:
    """How many numbers stand beside each image in a replay's directory; None where no file can be read."""
    for path in sorted(path for path in Path(directory).glob("*.npz") if ChunkName.of(path)):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:  # a damaged one is closed too
                return int(columns["vector"].shape[1]) if "vector" in columns.files else 0
        except Exception:  # damaged, in one of many ways
            continue
    return None


def agree(directory: Path, features: Features | None, vector_size: int, empty: bool) -> None:
    """Find in a replay's directory what is asked for beside the images; one that is ``empty`` takes any.

    Raises:
        UserError: it holds other features, or vectors of another size, or none.
    """
    _agree_on_features(directory, features, empty)
    held = vector_size if empty else stored_vector_size(directory)
    if held not in (vector_size, None):
        said = [f"vectors of {size} numbers" if size else "no vectors" for size in (held, vector_size)]
        raise UserError(
            f"the replay {directory} holds {said[0]} beside its images, and {said[1]} are asked for: use another run "
            "folder"
        )


def _agree_on_features(directory: Path, asked: Features | None, empty: bool) -> None:
    held, path = stored_features(directory), directory / _FEATURES
    if asked == held:
        return
    if not empty:
        raise UserError(f"the replay {directory} {_other(held, asked)}")
    path.unlink(missing_ok=True)
    if asked is not None:
        write_durably(path, json.dumps(asked._asdict()).encode())


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
