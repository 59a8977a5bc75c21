"""One HDF5 file as stable-worldmodel writes it: columns of rows end to end, and where each episode lies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.action_scale import ActionScale
from worldmodel.experience.formats.base import ForeignEpisode, Format, chosen_image
from worldmodel.experience.formats.h5 import opened, rows, wanted

_WHAT = "hdf5"
_LAYOUT = "a file of stable-worldmodel"


class StableWorldModelFile(Format):
    """``pixels`` (N, H, W, C), ``action`` (N, A), ``ep_len``, ``ep_offset``; ``reward``, ``terminated``, ``truncated``.

    A row has what was seen, and the action that was taken then; but ``reward`` and ``terminated`` came with what was
    seen: ``action[t]`` led to ``pixels[t + 1]`` and earned ``reward[t + 1]``. The last action of an episode and its
    first reward are none (NaN as a rule), and are not read.
    """

    def _open(self) -> None:
        if self.path.is_dir():
            files = sorted([*self.path.glob("*.h5"), *self.path.glob("*.hdf5")])
            if len(files) != 1:
                raise UserError(f"{self.path} holds {len(files)} HDF5 files: name the one that is meant")
            self.path = files[0]
        with opened(self.path, _WHAT) as file:
            wanted(self.path, file, ("ep_len", "ep_offset", "action"), _LAYOUT)
            known = {name: file[name].shape for name in file if name not in ("ep_len", "ep_offset")}
            pictures = [name for name in known if len(known[name]) == 4 and file[name].dtype == np.uint8]
            favourite = "pixels" if self.image is None and "pixels" in pictures else self.image
            self._pixels = chosen_image(pictures, favourite, self.path)
            lengths, offsets = (np.asarray(file[name][:], np.int64) for name in ("ep_len", "ep_offset"))
            shortest = min(known[name][0] for name in (self._pixels, "action"))
        if len(lengths) != len(offsets) or (len(lengths) and (offsets + lengths).max() > shortest):
            raise UserError(
                f"{self.path} has {shortest:,} rows, and ep_len and ep_offset speak of others: is it cut short?"
            )
        self._spans = [(int(a), int(a + n)) for a, n in zip(offsets, lengths, strict=True)]

    def __len__(self) -> int:
        return len(self._spans)

    def scale(self) -> ActionScale | None:
        """What we write beside the column of actions, and others may."""
        with opened(self.path, _WHAT) as file:
            held = dict(file["action"].attrs)
        if "choices" in held:
            return ActionScale.choices(int(held["choices"]), int(held.get("start", 0)), "file")
        return ActionScale.box(held["low"], held["high"], "file") if {"low", "high"} <= held.keys() else None

    def actions(self) -> Iterator[np.ndarray]:
        with opened(self.path, _WHAT) as file:
            for begin, end in self._spans:
                yield file["action"][begin : end - 1]

    def episodes(self) -> Iterator[ForeignEpisode]:
        with opened(self.path, _WHAT) as file:
            for number, (begin, end) in enumerate(self._spans):
                terminated, truncated = (_ends(file, name, end) for name in ("terminated", "truncated"))
                yield ForeignEpisode(
                    rows(self.path, file[self._pixels], begin, end),
                    file["action"][begin : end - 1],
                    file["reward"][begin + 1 : end] if "reward" in file else None,
                    terminated=terminated,
                    truncated=truncated,
                    where=f"{self.path}, episode {number}",
                )


def _ends(file: Any, name: str, end: int) -> bool:
    return name in file and bool(np.asarray(file[name][end - 1]).any())
