"""Bring episodes from elsewhere into a replay: resized, scaled, aligned, checked. Legend: T steps, L records."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from PIL import Image

from worldmodel.errors import UserError
from worldmodel.experience.action_scale import ActionScale, measured
from worldmodel.experience.chunks import write_durably
from worldmodel.experience.formats.base import ForeignEpisode, Format
from worldmodel.experience.replay import Replay
from worldmodel.experience.spaces import picture_of

NAME = "imported.json"  # in the folder of a replay's shards


@dataclass(frozen=True)
class Imported:
    """What a run's replay holds of data from elsewhere."""

    format: str
    source: str  # path that it was read from
    image_shape: tuple[int, int, int]  # (3, H, W)
    scale: ActionScale
    episodes: int
    records: int
    rewards: int  # steps of which the reward is known
    terminated: int  # episodes after which nothing follows
    stepless: int = 0  # episodes of one image, which were left out
    vector_size: int = 0  # numbers beside each image

    def write(self, replay: Path) -> None:
        """Keep it in the folder of a replay's shards.

        Raises:
            UserError: the disk is full.
        """
        write_durably(replay / NAME, json.dumps(asdict(self) | {"scale": self.scale._asdict()}, indent=1).encode())


def read_imported(run: Path | str) -> Imported | None:
    """What a run's folder says of data from elsewhere; None where it has none.

    Raises:
        UserError: what it says cannot be read.
    """
    path = Path(run) / "replay" / NAME
    if not path.exists():
        return None
    try:
        held: dict[str, Any] = json.loads(path.read_text())
        scale = held["scale"]
        limits = {name: tuple(float(x) for x in scale[name]) for name in ("low", "high")}
        channels, height, width = (int(x) for x in held["image_shape"])
        return Imported(
            **{**held, "image_shape": (channels, height, width), "scale": ActionScale(**{**scale, **limits})}
        )
    except (ValueError, KeyError, TypeError) as cause:
        raise UserError(f"{path} is damaged: import the data again") from cause


def import_episodes(
    source: Format,
    directory: Path,
    size: int,
    scale: ActionScale | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Write all episodes of a format into a new replay, one after another.

    Args:
        source: of the episodes.
        directory: of the replay.
        size: side of the stored images in pixels.
        scale: of the actions; what the files say if None, or else what the actions themselves span.
        progress: is told how many episodes are done.

    Raises:
        UserError: there is no episode, or one is damaged, not finite, or unlike the others. What was written until then
            stays in the directory.
    """
    scale = scale or source.scale() or measured(source.actions())
    shapes: dict[str, Any] = {
        "image_shape": (3, size, size),
        "action_size": scale.size,
        "vector_size": source.vector_size,
    }
    replay = Replay(directory, capacity=2**62, **shapes)
    prepare = _Prepare(scale, size)
    stepless = terminated = known = 0
    for number, episode in enumerate(source.episodes()):
        progress(number)
        if not len(episode.action):
            stepless += 1
            continue
        records = prepare(episode, replay.dtype)
        replay.add_episode(records)
        terminated += bool(records["is_terminal"][-1])
        known += int(np.isfinite(records["reward"][1:]).sum())
    if not len(replay):
        raise UserError(f"{source.path} is empty: there is no episode with an action in it")
    return Imported(
        format=source.name,
        source=str(source.path),
        image_shape=(3, size, size),
        scale=scale,
        episodes=replay.num_episodes,
        records=len(replay),
        rewards=known,
        terminated=terminated,
        stepless=stepless,
        vector_size=source.vector_size,
    )


class _Prepare:
    """Makes records of episodes, which all have to be of one kind.

    Args:
        scale: of the actions.
        size: of the stored images.
    """

    def __init__(self, scale: ActionScale, size: int) -> None:
        self._scale, self._size = scale, size
        self._shape: tuple[int, ...] | None = None
        self._take: Callable[[Any], np.ndarray] | None = None

    def __call__(self, episode: ForeignEpisode, dtype: np.dtype) -> np.ndarray:
        """Records (L,) of ``dtype``, aligned as in ``worldmodel.types``. A reward that nobody knows is NaN."""
        steps, where = len(episode.action), episode.where
        records = np.zeros(steps + 1, dtype)
        records["action"][1:] = self._scale.scaled(episode.action, where)
        reward = _checked_reward(episode.reward, steps, where)
        records["reward"] = np.nan if reward is None else np.concatenate([np.zeros(1), reward])
        if episode.vector is not None:
            records["vector"] = episode.vector
        records["is_first"][0], records["is_terminal"][-1] = True, episode.terminated
        count = 0
        for image in episode.image:
            if count <= steps:
                records["image"][count] = self._picture(np.asarray(image), where)
            count += 1
        if count != steps + 1:
            raise UserError(f"{where} has {count} images and {steps} actions: it takes one image more than actions")
        return records

    def _picture(self, image: np.ndarray, where: str) -> np.ndarray:
        """(3, size, size) of what the data holds, as an environment's would be."""
        if self._shape is None or self._take is None:
            seen = None if image.dtype != np.uint8 else picture_of(spaces.Box(0, 255, image.shape, np.uint8))
            if seen is None:
                raise UserError(f"{where} holds {image.dtype} {image.shape} where uint8 pictures (H, W, C) should be")
            self._shape, self._take = image.shape, seen.take
        if image.shape != self._shape or image.dtype != np.uint8:
            raise UserError(f"{where} has images {image.dtype} {image.shape}, the others {self._shape}")
        picture = self._take(image)  # (H, W, 1 or 3)
        side = (self._size, self._size)
        if picture.shape[:2] != side:
            picture = np.asarray(Image.fromarray(picture.squeeze()).resize(side, Image.Resampling.BOX))
        return np.broadcast_to(picture.reshape(*side, -1), (*side, 3)).transpose(2, 0, 1)


def _checked_reward(reward: np.ndarray | None, steps: int, where: str) -> np.ndarray | None:
    """Rewards (T,) as float64; None where all are NaN, which nobody has recorded."""
    if reward is None:
        return None
    flat = np.asarray(reward, np.float64).reshape(-1)
    if len(flat) != steps:
        raise UserError(f"{where} has {len(flat)} rewards and {steps} actions")
    if np.isnan(flat).all():
        return None
    if not np.isfinite(flat.astype(np.float32)).all():
        raise UserError(f"{where} has a reward that is not finite, at step {int((~np.isfinite(flat)).argmax())}")
    return flat
