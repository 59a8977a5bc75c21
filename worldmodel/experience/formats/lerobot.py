"""LeRobot's datasets, version 3: tables in Parquet, films in mp4, many episodes in a file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worldmodel.errors import UserError
from worldmodel.experience.formats.base import (
    ForeignEpisode,
    Format,
    at_each_frame,
    chosen_image,
    lacking,
    package,
    reading,
)
from worldmodel.experience.formats.frames import film, numbers, parquet, parquet_names

_WHAT = "lerobot"
_PLACE = ("episode_index", "length", "data/chunk_index", "data/file_index")
_REWARD, _TERMINATED = "next.reward", "next.terminated"


class LeRobotData(Format):
    """A folder with ``meta/info.json``, ``meta/episodes/``, ``data/`` and ``videos/``.

    A row has a frame, the ``action`` that was taken then, and the ``next.reward`` that it earned. Of T rows the last
    action led to what was not recorded: see ``at_each_frame``. ``next.done`` says that an episode was over and not why:
    only ``next.terminated``, where there is one, makes the last state terminal.
    """

    def _open(self) -> None:
        package("pyarrow.parquet", _WHAT)
        path = self.path / "meta" / "info.json"
        if not path.is_file():
            raise UserError(f"{self.path} is no dataset of LeRobot: there is no meta/info.json")
        with reading(path, "JSON"):
            self._info: dict[str, Any] = json.loads(path.read_text())
        version = str(self._info.get("codebase_version"))
        if not version.startswith("v3"):
            raise UserError(
                f"{self.path} is of LeRobot's version {version}: convert it to v3.0 with LeRobot's own tool"
            )
        if missing := [name for name in ("features", "data_path") if name not in self._info]:
            raise lacking(path, missing, self._info, "a dataset of LeRobot")
        features = self._info["features"]
        if "action" not in features:
            raise lacking(path, ["action"], features, "a dataset of LeRobot")
        pictures = [name for name, held in features.items() if held.get("dtype") in ("video", "image")]
        self._camera = chosen_image(pictures, self.image, self.path)
        self._is_film = features[self._camera]["dtype"] == "video"
        self._rows = self._episode_rows()

    def __len__(self) -> int:
        return len(self._rows)

    def actions(self) -> Iterator[np.ndarray]:
        for row, held in self._tables(("action",)):
            yield self._aligned([], row, held)[1]

    def episodes(self) -> Iterator[ForeignEpisode]:
        films = _Films()
        more = () if self._is_film else (self._camera,)
        for row, held in self._tables(("action", *more)):
            where = f"{self.path}, episode {row['episode_index']}"
            image = self._filmed(films, row, where) if self._is_film else self._stored(held[self._camera])
            images, action, reward = self._aligned(image, row, held)
            ends = held.get(_TERMINATED) or [False]
            # where the last action is left out, so is the state that it led to
            terminated = bool(np.any(ends[-1])) and len(action) == row["length"]
            yield ForeignEpisode(images, action, reward, terminated=terminated, truncated=not terminated, where=where)

    def _aligned(self, image: Any, row: dict[str, Any], held: dict[str, list]) -> tuple[Any, Any, Any]:
        where = self._file("data_path", row, "data")
        action = numbers(where, "action", held["action"])
        reward = numbers(where, _REWARD, held[_REWARD]).reshape(-1) if _REWARD in held else None
        return at_each_frame(image, action, reward)

    def _episode_rows(self) -> list[dict[str, Any]]:
        """Where each episode lies, in the order of their numbers."""
        files = sorted((self.path / "meta" / "episodes").rglob("*.parquet"))
        if not files:
            raise UserError(f"{self.path} has no meta/episodes/*.parquet: is it cut short?")
        names: tuple[str, ...] = _PLACE
        if self._is_film:
            names += tuple(f"videos/{self._camera}/{x}" for x in ("chunk_index", "file_index", "from_timestamp"))
        rows: list[dict[str, Any]] = []
        for path in files:
            columns = parquet(path, names, _WHAT)
            rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return sorted(rows, key=lambda row: row["episode_index"])

    def _tables(self, names: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], dict[str, list]]]:
        """Each episode's row, and its part of the columns; a file is read once."""
        before: Path | None = None
        columns: dict[str, list] = {}
        for row in self._rows:
            path = self._file("data_path", row, "data")
            if path != before:
                there = [
                    name for name in (_REWARD, _TERMINATED) if path.is_file() and name in parquet_names(path, _WHAT)
                ]
                columns, before = parquet(path, ("episode_index", *names, *there), _WHAT), path
                number = np.asarray(columns["episode_index"])
            rows = np.flatnonzero(number == row["episode_index"])
            if len(rows) != row["length"]:
                raise UserError(f"{path} has {len(rows)} of {row['length']} rows of episode {row['episode_index']}")
            yield row, {name: [values[i] for i in rows] for name, values in columns.items()}

    def _file(self, template: str, row: dict[str, Any], prefix: str) -> Path:
        with reading(self.path / "meta" / "info.json", "what says where files are"):
            chunk, file = row[f"{prefix}/chunk_index"], row[f"{prefix}/file_index"]
            name = str(self._info[template]).format(chunk_index=chunk, file_index=file, video_key=self._camera)
        return self._inside(name)

    def _inside(self, name: str) -> Path:
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise UserError(f"{self.path} speaks of a file out of the folder: {path}")
        return path

    def _filmed(self, films: _Films, row: dict[str, Any], where: str) -> Iterator[np.ndarray]:
        prefix = f"videos/{self._camera}"
        path = self._file("video_path", row, prefix)
        begin = float(row[f"{prefix}/from_timestamp"]) - 0.5 / float(self._info.get("fps") or 30)
        count = 0
        for image in islice(films.since(path, begin), row["length"]):
            count += 1
            yield image
        if count != row["length"]:
            raise UserError(f"{where}: {path} has {count} of its {row['length']} frames: is it cut short?")

    def _stored(self, values: list) -> Iterator[np.ndarray]:
        """Pictures that stand in the table, each a file's bytes or its name."""
        for value in values:
            with reading(self.path, "a picture"):
                held = value["bytes"] if value["bytes"] is not None else self._inside(value["path"]).read_bytes()
                image = np.asarray(Image.open(io.BytesIO(held)).convert("RGB"))
            yield image


class _Films:
    """Films that are read on, from one episode to the next."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._frames: Iterator[tuple[float, np.ndarray]] = iter(())
        self._last = -1.0

    def since(self, path: Path, seconds: float) -> Iterator[np.ndarray]:
        """Frames from then on."""
        if path != self._path or seconds < self._last:
            self._path, self._frames, self._last = path, film(path), -1.0
        for time, image in self._frames:
            self._last = time
            if time >= seconds:
                yield image
