"""Real experience of one rank: its environments, and the replay that they fill."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from encoders.ranges import PositiveInt, Range, Side
from worldmodel.errors import UserError
from worldmodel.experience.rendering import Cameras, Quality
from worldmodel.experience.replay import Features, Replay, stored_features
from worldmodel.experience.vector import Environments, InProcess, Workers
from worldmodel.training.agent import Agent
from worldmodel.training.randomness import seed_for
from worldmodel.types import ActionSpec


class Experience:
    """Where real experience comes from and how it is kept. Environments are made when they are first asked for.

    ``seed`` and ``rank``, from which their seeds derive, are set before that. ``frames`` counts those that a loaded
    checkpoint had seen, action repeat included, on all ranks.

    Args:
        task: a dm_control task (``cartpole_swingup``), a Gymnasium id, or a factory ``package.module:callable``.
        action_repeat: environment frames per action.
        num_envs: environments on each rank.
        workers: step environments in processes of their own rather than in this one (for more than two cores).
        size: side of the rendered image in pixels.
        camera: camera of a dm_control task, its own choice if None; a list puts the views of several side by side.
        quality: ``fast`` rendering, or ``reference``, dm_control's own (for published comparisons).
        episode_frames: longest of the episodes that are collected, in environment frames, so that there are more
            beginnings among them; as long as the task has them if None. Evaluations run whole episodes.
        capacity: records the replay samples from, on each rank.
        batch: sequences in a batch (on each rank).
        length: records in a sequence.
        store_features: run the encoder's frozen part once for each frame, when it is collected, and store what it
            makes of it. Updates are the same, and faster.

    Raises:
        UserError: a batch is longer than the replay, or larger than the machine's memory.
    """

    def __init__(
        self,
        task: str = "cartpole_balance",
        action_repeat: PositiveInt = 2,
        num_envs: Annotated[int, Range(least=1, most=4096)] = 4,
        workers: bool = False,
        size: Side = 64,
        camera: Cameras = None,
        quality: Quality = "fast",
        episode_frames: PositiveInt | None = None,
        capacity: Annotated[int, Range(least=2)] = 500_000,
        batch: PositiveInt = 16,
        length: Annotated[int, Range(least=2)] = 32,
        store_features: bool = False,
    ) -> None:
        if length > capacity:
            raise UserError(
                f"data.length is {length:,} and data.capacity {capacity:,}: the replay never holds a sequence that long"
            )
        needed = 4 * 3 * batch * length * size**2 * (len(camera) if isinstance(camera, list) else 1)
        if (there := _memory()) and needed > there:
            raise UserError(
                f"the images of a batch (data.batch {batch:,}, data.length {length:,}, data.size {size}) take "
                f"{needed / 1e9:,.0f} GB, and this machine has {there / 1e9:,.0f}: lower one of them"
            )
        self.task, self.num_envs, self.workers, self.capacity = task, num_envs, workers, capacity
        self.settings: dict[str, Any] = {
            "size": size,
            "action_repeat": action_repeat,
            "camera": camera,
            "quality": quality,
        }
        self.episode_frames = episode_frames
        self.batch, self.length, self.store_features = batch, length, store_features
        self.seed = self.rank = self.frames = 0
        self._made: dict[str, Environments] = {}

    @property
    def environments(self) -> Environments:
        """Those that training collects from."""
        return self.held_out("environments")

    @property
    def action(self) -> ActionSpec:
        """What an action of the task is."""
        return self.environments.action

    def held_out(self, purpose: str) -> Environments:
        """Environments whose episodes begin as no others do; the same ones at the next call.

        Args:
            purpose: ``evaluation`` as training goes on, by which the best weights are chosen; ``report`` for returns
                that are reported.
        """
        if purpose not in self._made:
            limit = self.episode_frames if purpose == "environments" else None
            self._made[purpose] = self._make(seed_for(self.seed, self.rank, purpose), limit)
        return self._made[purpose]

    def open_replay(self, folder: Path | str, features: Features | None) -> Replay:
        """This rank's part of a run folder's replay, which stores these features."""
        return Replay(
            shard(folder, self.rank),
            image_shape=self.environments.image_shape,
            action_size=self.action.size,
            capacity=self.capacity,
            seed=seed_for(self.seed, self.rank, "replay"),
            features=features,
        )

    def close(self) -> None:
        """Stop all environments. Those that are asked for later are made anew."""
        for environments in self._made.values():
            environments.close()
        self._made = {k: v for k, v in self._made.items() if k == "environments"}  # their action is still asked for

    def _make(self, seed: int, episode_frames: int | None) -> Environments:
        settings = {**self.settings, "episode_frames": episode_frames}
        if self.workers:
            return Workers(self.task, self.num_envs, seed, first_core=self.rank * self.num_envs, **settings)
        return InProcess(self.task, self.num_envs, seed, **settings)


def _memory() -> int:
    """Bytes of memory that the machine has; 0 if it does not say."""
    known = getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in known else 0


def open_replay(folder: Path | str, data: Experience, rank: int = 0) -> Replay:
    """The records of a run folder that were collected on ``rank``, as ``data`` describes them. Deletes none.

    Features that were stored with them are read as well, and are of use to that run's encoder alone: for another,
    ``batch._replace(features=None)``.

    Raises:
        UserError: they are of another image or action shape.
    """
    directory = shard(folder, rank)
    return Replay(
        directory,
        image_shape=data.environments.image_shape,
        action_size=data.action.size,
        capacity=data.capacity,
        seed=seed_for(data.seed, rank, "replay"),
        features=stored_features(directory),
    )


def shard(folder: Path | str, rank: int, replay: str = "replay") -> Path:
    """Where a run keeps what one rank has collected."""
    return Path(folder) / replay / f"rank_{rank}"


def frozen_features(agent: Agent) -> Features:
    """What an agent's encoder has to store with each frame.

    Raises:
        UserError: nothing of it is frozen.
    """
    encoder = agent.world_model.encoder
    if encoder.feature_shape is None:
        kind = type(encoder).__name__
        raise UserError(f"data.store_features wants a frozen encoder: {kind} as it is set has no frozen part to store")
    return Features(encoder.feature_shape, encoder.identity())
