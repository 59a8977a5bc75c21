"""A folder of films, an episode each, and one table of actions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.formats.base import ForeignEpisode, Format, at_each_frame, lacking
from worldmodel.experience.formats.frames import film, frames_in, numbers, table

_WHAT = "videos"
_FILMS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".gif")
_ACTION = ("action", "action_", "action.", "action[")


class VideoFolder(Format):
    """Films, and ``actions.csv`` or ``actions.parquet`` (or whatever the only table there is called).

    A row for each frame, in order: ``video`` is the film's name, with or without what its name ends in; ``action`` or
    ``action_0``, ``action_1``, ... what was done then; ``reward``, if there is one, what that earned; ``terminated``,
    if there is one, whether nothing followed. A film has a frame more than rows, where the last action led; or as many
    (see ``at_each_frame``).
    """

    def _open(self) -> None:
        if not self.path.is_dir():
            raise UserError(f"{self.path} is no folder: videos wants one with films and a table of actions")
        tables = sorted(path for path in self.path.iterdir() if path.suffix in (".csv", ".parquet"))
        named = [path for path in tables if path.stem == "actions"] or tables
        if len(named) != 1:
            raise UserError(f"{self.path} holds {len(named)} tables: videos wants one, actions.csv or actions.parquet")
        self._table = named[0]
        columns = table(self._table, _WHAT)
        names = [name for name in columns if name == _ACTION[0] or name.startswith(_ACTION[1:])]
        if missing := [*(["video"] * ("video" not in columns)), *(["action"] * (not names))]:
            raise lacking(self._table, missing, columns, "a table of actions")
        action = [numbers(self._table, name, columns[name]) for name in names]
        self._action = np.concatenate([x.reshape(len(x), -1) for x in action], 1)  # (N, A)
        more = {name: numbers(self._table, name, columns[name]) for name in ("reward", "terminated") if name in columns}
        self._more = more
        self._rows: dict[Path, list[int]] = {}
        films = {p.name: p for p in sorted(self.path.iterdir()) if p.suffix.lower() in _FILMS}
        by_stem = {path.stem: path for path in films.values()}
        for number, name in enumerate(map(str, columns["video"])):
            path = films.get(name) or by_stem.get(name)
            if path is None:
                raise UserError(f"{self._table} speaks of {name}, and there is no such film in {self.path}")
            self._rows.setdefault(path, []).append(number)

    def __len__(self) -> int:
        return len(self._rows)

    def actions(self) -> Iterator[np.ndarray]:
        for rows in self._rows.values():
            yield self._action[rows]

    def episodes(self) -> Iterator[ForeignEpisode]:
        for path, rows in self._rows.items():
            ends = self._more.get("terminated")
            terminated = ends is not None and bool(ends[rows[-1]] == 1)
            reward = self._more["reward"][rows] if "reward" in self._more else None
            image: Iterable[np.ndarray] = (frame for _, frame in film(path))
            action = self._action[rows]
            if frames_in(path) == len(rows):
                image, action, reward = at_each_frame(image, action, reward)
                terminated = terminated and len(action) == len(rows)  # or the state that it led to was not recorded
            yield ForeignEpisode(image, action, reward, terminated=terminated, truncated=False, where=str(path))
