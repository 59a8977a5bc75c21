"""V-D4RL as Dreamer's replays are (Lu et al. 2023): a compressed ``.npz`` for each episode, 64 x 64 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.formats.base import ForeignEpisode, Format, lacking, reading

_COLUMNS = ("image", "action", "reward")


class VD4RLFolder(Format):
    """A folder of episodes of T + 1 records.

    ``action[t]`` and ``reward[t]`` led to ``image[t]``, and those of record 0 are none. ``is_terminal`` (in older files
    a ``discount`` of 0) at the last record says that nothing follows.
    """

    def _open(self) -> None:
        folder = self.path / "64px" if (self.path / "64px").is_dir() else self.path
        self._files = [folder] if folder.is_file() else sorted(folder.glob("*.npz"))
        if not self._files:
            raise UserError(f"{self.path} holds no .npz file: v-d4rl wants the folder of episodes (.../64px)")

    def __len__(self) -> int:
        return len(self._files)

    def actions(self) -> Iterator[np.ndarray]:
        for path in self._files:
            yield _read(path, ("action",))["action"][1:]

    def episodes(self) -> Iterator[ForeignEpisode]:
        for path in self._files:
            columns = _read(path, (*_COLUMNS, "is_terminal", "discount", "is_last"))
            lengths = {name: len(columns[name]) for name in _COLUMNS}
            if len(set(lengths.values())) > 1:
                raise UserError(f"{path} has columns of several lengths: {lengths}")
            ends = columns["is_terminal"] if "is_terminal" in columns else columns.get("discount", np.ones(1)) == 0
            terminated = bool(len(ends) and ends[-1])
            yield ForeignEpisode(
                columns["image"],
                columns["action"][1:],
                columns["reward"][1:],
                terminated=terminated,
                truncated=not terminated and bool(np.any(columns.get("is_last", False))),
                where=str(path),
            )


def _read(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    with reading(path, "an .npz file"), np.load(path, allow_pickle=False) as held:
        if missing := [name for name in names if name in _COLUMNS and name not in held.files]:
            raise lacking(path, missing, held.files, "an episode of V-D4RL")
        return {name: held[name] for name in names if name in held.files}
