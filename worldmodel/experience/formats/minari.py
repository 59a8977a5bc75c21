"""Minari's datasets in HDF5: a group for each episode, and what the spaces are in ``metadata.json``."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodel.errors import UserError
from worldmodel.experience.action_scale import ActionScale
from worldmodel.experience.formats.base import ForeignEpisode, Format, chosen_image, lacking, reading
from worldmodel.experience.formats.h5 import opened, rows, wanted

_WHAT = "minari"
_EPISODE = re.compile(r"episode_(\d+)")


class MinariData(Format):
    """A dataset's folder, or the ``data`` in it, or ``main_data.hdf5`` itself.

    Of T steps ``observations`` has T + 1 rows, the others T: ``actions[t]`` was taken in ``observations[t]`` and earned
    ``rewards[t]``. Pictures are plain, or JPEG files. Of an observation that is a Dict one picture is read.
    """

    def _open(self) -> None:
        folders = [self.path, self.path / "data"]
        files = [self.path] if self.path.is_file() else [f / "main_data.hdf5" for f in folders]
        self._file = next((file for file in files if file.is_file()), files[0])
        self._metadata = _metadata(self._file.with_name("metadata.json"))
        if self._metadata.get("data_format", "hdf5") != "hdf5":
            kind = self._metadata["data_format"]
            raise UserError(f"{self.path} is of Minari's format {kind}: only its hdf5 can be read")
        if not self._file.is_file():
            raise UserError(f"{self.path} is no dataset of Minari: there is no data/main_data.hdf5")
        with opened(self._file, _WHAT) as file:
            found = [name for name in file if _EPISODE.fullmatch(name)]
            if len(file) and not found:
                raise lacking(self._file, ["episode_0"], file.keys(), "a dataset of Minari")
        self._episodes = sorted(found, key=lambda name: int(name.removeprefix("episode_")))

    def __len__(self) -> int:
        return len(self._episodes)

    def scale(self) -> ActionScale | None:
        space = self._metadata.get("action_space")
        if space is None:
            return None
        try:
            held = json.loads(space)
            if held["type"] == "Discrete":
                return ActionScale.choices(int(held["n"]), int(held.get("start", 0)), "file")
            if held["type"] != "Box":
                raise UserError(f"{self.path} has actions of {held['type']}: known are Box and Discrete")
            low, high = (np.asarray(held[name], np.float64) for name in ("low", "high"))
            is_bounded = bool(np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all())
            return ActionScale.box(low, high, "file") if is_bounded else None
        except (ValueError, KeyError, TypeError) as cause:
            raise UserError(f"{self.path}: metadata.json has an action_space that cannot be read") from cause

    def actions(self) -> Iterator[np.ndarray]:
        with opened(self._file, _WHAT) as file:
            for name in self._episodes:
                wanted(self._file, file[name], ("actions",), "an episode of Minari")
                yield self._array(file[name], "actions")

    def episodes(self) -> Iterator[ForeignEpisode]:
        with opened(self._file, _WHAT) as file:
            for name in self._episodes:
                group = file[name]
                wanted(self._file, group, ("observations", "actions"), "an episode of Minari")
                ends = {x: bool(len(group[x]) and group[x][-1]) for x in ("terminations", "truncations") if x in group}
                yield ForeignEpisode(
                    self._pictures(group["observations"]),
                    self._array(group, "actions"),
                    self._array(group, "rewards") if "rewards" in group else None,
                    terminated=ends.get("terminations", False),
                    truncated=ends.get("truncations", False),
                    where=f"{self._file}, {name}",
                )

    def _array(self, group: Any, name: str) -> np.ndarray:
        if not hasattr(group[name], "shape"):
            raise UserError(f"{self._file} has {name} of several parts: known are one Box and one Discrete")
        return np.asarray(group[name][()])

    def _pictures(self, observations: Any) -> Iterator[np.ndarray]:
        """Images (H, W, C) uint8 of one episode."""
        chosen = observations
        if not hasattr(observations, "shape"):  # a Dict or Tuple
            pictures = [name for name in _leaves(observations) if _is_picture(observations[name])]
            chosen = observations[chosen_image(pictures, self.image, self._file)]
        elif not _is_picture(observations):
            raise UserError(
                f"{self._file} has observations {observations.dtype} {observations.shape[1:]}, no pictures: a world "
                "model from pixels needs them"
            )
        for row in rows(self._file, chosen, 0, len(chosen)):
            if chosen.ndim < 3:  # a JPEG file
                with reading(self._file, "JPEG"):
                    row = np.asarray(Image.open(io.BytesIO(np.asarray(row, np.uint8).tobytes())))
            yield row


def _is_picture(dataset: Any) -> bool:
    """Rows of pictures, or of JPEG files, whose lengths may differ."""
    if dataset.dtype == np.uint8 and dataset.ndim >= 3:
        return True
    first = dataset[0] if dataset.ndim in (1, 2) and len(dataset) else None
    return isinstance(first, np.ndarray) and first.dtype == np.uint8 and first[:3].tobytes() == b"\xff\xd8\xff"


def _leaves(group: Any, prefix: str = "") -> Iterator[str]:
    """Paths of all datasets in a group."""
    for name, value in group.items():
        if hasattr(value, "shape"):
            yield prefix + name
        else:
            yield from _leaves(value, f"{prefix}{name}/")


def _metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with reading(path, "JSON"):
        held = json.loads(path.read_text())
    if not isinstance(held, dict):
        raise UserError(f"{path} holds no metadata of Minari")
    return held
