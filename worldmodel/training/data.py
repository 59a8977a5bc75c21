"""Real experience of one rank: its environments, and the replay that they fill."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from encoders.ranges import PositiveInt, Range, Side
from worldmodel.errors import UserError
from worldmodel.experience.imported import Imported, read_imported
from worldmodel.experience.rendering import Cameras, Quality
from worldmodel.experience.replay import Features, Replay, stored_features
from worldmodel.experience.vector import Environments, InProcess, Workers
from worldmodel.training.agent import Agent
from worldmodel.training.randomness import seed_for
from worldmodel.types import ActionSpec

_EVALUATED = 4  # environments to evaluate in, where none is collected from


class Experience:
    """Where real experience comes from and how it is kept. Environments are made when they are first asked for.

    ``seed`` and ``rank``, from which their seeds derive, and the run's ``folder`` are set before that. ``frames``
    counts those that a loaded checkpoint had seen, action repeat included, on all ranks.

    Args:
        task: a dm_control task (``cartpole_swingup``), a Gymnasium id, or a factory ``package.module:callable``; null
            for none, where there is but data.
        action_repeat: environment frames per action.
        num_envs: environments on each rank; null to collect from none: what was imported is all there is to learn from,
            and a task, if there is one, is evaluated in.
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
        UserError: a batch is longer than the replay, or larger than the machine's memory, or there is nothing to
            collect from.
    """

    def __init__(
        self,
        task: str | None = "cartpole_balance",
        action_repeat: PositiveInt = 2,
        num_envs: Annotated[int, Range(least=1, most=4096)] | None = 4,
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
        if task is None and num_envs is not None:
            raise UserError("without data.task there is nothing to collect from: --offline learns from imported data")
        self.task, self.workers, self.capacity = task, workers, capacity
        self.offline, self.num_envs = num_envs is None, num_envs or _EVALUATED
        self.settings: dict[str, Any] = {
            "size": size,
            "action_repeat": action_repeat,
            "camera": camera,
            "quality": quality,
        }
        self.episode_frames = episode_frames
        self.batch, self.length, self.store_features = batch, length, store_features
        self.seed = self.rank = self.frames = 0
        self.folder: Path | None = None
        self._made: dict[str, Environments] = {}

    @property
    def environments(self) -> Environments:
        """Those that training collects from."""
        return self.held_out("environments")

    @property
    def action(self) -> ActionSpec:
        """What an action of the task, or of the imported data, is."""
        if not self.offline:
            return self.environments.action
        scale = self.imported.scale
        return ActionSpec(scale.size, scale.discrete, self.settings["action_repeat"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(3, H, W) of what is seen."""
        return self.imported.image_shape if self.offline else self.environments.image_shape

    @property
    def vector_size(self) -> int:
        """How many numbers are observed beside an image."""
        return self.imported.vector_size if self.offline else self.environments.vector_size

    @property
    def imported(self) -> Imported:
        """What the run's folder holds of data from elsewhere.

        Raises:
            UserError: nothing, or images of another size.
        """
        held = None if self.folder is None else read_imported(self.folder)
        if held is None:
            raise UserError(
                f"{self.folder} holds no data to learn from: worldmodel import FORMAT PATH --run {self.folder} first"
            )
        if held.image_shape[1] != self.settings["size"]:
            size = held.image_shape[1]
            raise UserError(
                f"data.size is {self.settings['size']}, and {self.folder} has images of {size}: keep them alike"
            )
        return held

    def held_out(self, purpose: str) -> Environments:
        """Environments whose episodes begin as no others do; the same ones at the next call.

        Args:
            purpose: ``evaluation`` as training goes on, by which the best weights are chosen; ``report`` for returns
                that are reported.

        Raises:
            UserError: there is no task, or its actions or images are not those of the imported data.
        """
        if purpose not in self._made:
            limit = self.episode_frames if purpose == "environments" else None
            self._made[purpose] = self._make(seed_for(self.seed, self.rank, purpose), limit)
        return self._made[purpose]

    def open_replay(self, folder: Path | str, features: Features | None) -> Replay:
        """This rank's part of a run folder's replay, which stores these features."""
        return self._replay(shard(folder, 0 if self.offline else self.rank), self.rank, features)

    def _replay(self, directory: Path, rank: int, features: Features | None) -> Replay:
        return Replay(
            directory,
            image_shape=self.image_shape,
            action_size=self.action.size,
            capacity=max(self.capacity, self.imported.records) if self.offline else self.capacity,
            seed=seed_for(self.seed, rank, "replay"),
            features=features,
            vector_size=self.vector_size,
        )

    def close(self) -> None:
        """Stop all environments. Those that are asked for later are made anew."""
        for environments in self._made.values():
            environments.close()
        self._made = {k: v for k, v in self._made.items() if k == "environments"}  # their action is still asked for

    def _make(self, seed: int, episode_frames: int | None) -> Environments:
        settings = {**self.settings, "episode_frames": episode_frames}
        task = self.needed_task()
        if self.workers:
            made: Environments = Workers(task, self.num_envs, seed, first_core=self.rank * self.num_envs, **settings)
        else:
            made = InProcess(task, self.num_envs, seed, **settings)
        if self.offline and _shown(made) != _shown(self):
            made.close()
            raise UserError(
                f"{task} takes {_said(made)}, and the data in {self.folder} has {_said(self)}: name the task that it "
                "is of, or none"
            )
        return made

    def needed_task(self) -> str:
        """The task, where one is needed.

        Raises:
            UserError: there is none.
        """
        if self.task is None:
            raise UserError("this run has no environment, only data: what acts in one cannot be done with it")
        return self.task


def _shown(of: Environments | Experience) -> tuple[Any, ...]:
    return of.action[:2], of.image_shape, of.vector_size


def _said(of: Environments | Experience) -> str:
    action = f"one of {of.action.size} choices" if of.action.discrete else f"{of.action.size} numbers"
    return f"{action} and shows {of.image_shape}" + (f" beside {of.vector_size} numbers" if of.vector_size else "")


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
    return data._replay(directory, rank, stored_features(directory))


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
