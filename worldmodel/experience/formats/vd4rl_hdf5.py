"""V-D4RL as dm_control's time steps (Lu et al. 2023): HDF5 shards, 84 x 84 pixels, episodes end to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.formats.base import ForeignEpisode, Format
from worldmodel.experience.formats.h5 import opened, rows, wanted

_WHAT = "v-d4rl-hdf5"
_COLUMNS = ("observation", "action", "reward", "discount", "step_type")
_FIRST, _LAST = 0, 2  # of dm_env's StepType


class VD4RLShards(Format):
    """A file, or a folder of files, of N records in ``step_type`` 0 (first), 1, 2 (last).

    ``action[t]`` and ``reward[t]`` led to ``observation[t]`` (C, H, W), and those of a first record are none. A last
    record with ``discount`` 0 is terminal; with 1 a time limit ended the episode, as they all do in V-D4RL.
    """

    def _open(self) -> None:
        folder = self.path / "84px" if (self.path / "84px").is_dir() else self.path
        files = [folder] if folder.is_file() else sorted([*folder.glob("*.hdf5"), *folder.glob("*.h5")])
        if not files:
            raise UserError(f"{self.path} holds no .hdf5 file: {_WHAT} wants the folder of shards (.../84px)")
        self._spans = {path: _spans(path) for path in files}

    def __len__(self) -> int:
        return sum(map(len, self._spans.values()))

    def actions(self) -> Iterator[np.ndarray]:
        for path, spans in self._spans.items():
            with opened(path, _WHAT) as file:
                for begin, end in spans:
                    yield file["action"][begin + 1 : end]

    def episodes(self) -> Iterator[ForeignEpisode]:
        for path, spans in self._spans.items():
            with opened(path, _WHAT) as file:
                for number, (begin, end) in enumerate(spans):
                    is_last = int(file["step_type"][end - 1]) == _LAST
                    terminated = is_last and float(file["discount"][end - 1]) == 0
                    yield ForeignEpisode(
                        rows(path, file["observation"], begin, end),
                        file["action"][begin + 1 : end],
                        file["reward"][begin + 1 : end],
                        terminated=terminated,
                        truncated=is_last and not terminated,
                        where=f"{path}, episode {number}",
                    )


def _spans(path: Path) -> list[tuple[int, int]]:
    """Where episodes begin and end."""
    with opened(path, _WHAT) as file:
        wanted(path, file, _COLUMNS, "a shard of V-D4RL")
        lengths = {name: len(file[name]) for name in _COLUMNS}
        step_type = np.asarray(file["step_type"][:]).reshape(-1)
    if len(set(lengths.values())) > 1:
        raise UserError(f"{path} has columns of several lengths: {lengths}")
    if len(step_type) and step_type[0] != _FIRST:
        raise UserError(f"{path} begins within an episode: its first step_type is {step_type[0]:g}, not {_FIRST}")
    begins = np.flatnonzero(step_type == _FIRST).tolist()
    return list(zip(begins, [*begins[1:], len(step_type)], strict=True))
