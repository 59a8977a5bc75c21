"""Our own replay: what another run has collected."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from worldmodel.errors import UserError
from worldmodel.experience.action_scale import ActionScale
from worldmodel.experience.formats.base import ForeignEpisode, Format
from worldmodel.experience.imported import read_imported
from worldmodel.experience.records import stored_features, stored_shapes, stored_vector_size
from worldmodel.experience.replay import Replay


class OwnReplay(Format):
    """A run's folder, or one with the chunks of a replay; only read.

    ``action[t]`` and ``reward[t]`` led to ``image[t]``. An episode whose beginning has left the replay begins with what
    is left of it. Actions are in the units of the run: as they were imported there, or in [-1, 1].
    """

    def _open(self) -> None:
        shards = sorted(self.path.glob("replay/rank_*")) or [self.path]
        shards = [folder for folder in shards if any(folder.glob("*.npz"))]
        if not shards:
            raise UserError(f"{self.path} holds no replay: name a run's folder that has one")
        self.replays, imported = [], read_imported(self.path)
        for folder in shards:
            (shape, size), self.vector_size = stored_shapes(folder), stored_vector_size(folder) or 0
            held: dict[str, Any] = {"features": stored_features(folder), "vector_size": self.vector_size}
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a damaged chunk is skipped in training, but not copied
                try:
                    replay = Replay(folder, image_shape=shape, action_size=size, capacity=2**62, **held)
                except UserWarning as cause:
                    raise UserError(f"{folder} is damaged: {cause}") from cause
            self.replays.append(replay)
        self.image_shape = shape
        self._scale = None if imported is None else imported.scale

    def __len__(self) -> int:
        return sum(replay.num_episodes for replay in self.replays)

    def scale(self) -> ActionScale | None:
        return self._scale

    def actions(self) -> Iterator[np.ndarray]:
        for episode in self.episodes():
            yield episode.action

    def episodes(self) -> Iterator[ForeignEpisode]:
        for replay in self.replays:
            for number, records in replay.episodes():
                action = records["action"][1:]
                yield ForeignEpisode(
                    records["image"],
                    action if self._scale is None else self._scale.original(action),
                    records["reward"][1:],
                    terminated=bool(records["is_terminal"][-1]),
                    truncated=False,
                    where=f"{replay.directory}, episode {number}",
                    vector=records["vector"] if self.vector_size else None,
                )
