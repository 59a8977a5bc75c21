"""The LightningDataModule: environments, replay and collector of one rank, and the batches that training reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import lightning as L
from torch import Tensor, distributed

from worldmodel.errors import UserError
from worldmodel.experience.collector import Collector, EpisodeSummary, Policy, RandomPolicy
from worldmodel.experience.rendering import Cameras, Quality
from worldmodel.experience.replay import Features, Replay, stored_features
from worldmodel.experience.vector import Environments, InProcess, Workers
from worldmodel.training.agent import Agent
from worldmodel.training.randomness import random_state
from worldmodel.training.run import launched_rank
from worldmodel.types import ActionSpec, SequenceBatch

_EVALUATION = 1_000_003  # added to the seed, so that no training episode is ever evaluated on
_RANK = 1_000


class Batches:
    """``updates`` batches an epoch, drawn from the replay as they are asked for. Sized, so nothing is drawn early."""

    def __init__(self, data: Experience) -> None:
        self._data = data

    def __len__(self) -> int:
        return self._data.updates

    def __iter__(self) -> Iterator[SequenceBatch]:
        for _ in range(len(self)):
            yield self._data.replay.sample(self._data.batch, self._data.length)


class Experience(L.LightningDataModule):
    """Real experience: where it comes from and how it is fed.

    Args:
        task: a dm_control task (``cartpole_swingup``), a Gymnasium id, or a factory ``package.module:callable``.
        action_repeat: environment frames per action.
        num_envs: environments on each rank.
        workers: step environments in processes of their own rather than in this one (for more than two cores).
        size: side of the rendered image in pixels.
        camera: camera of a dm_control task, its own choice if None; a list puts the views of several side by side.
        quality: ``fast`` rendering, or ``reference``, dm_control's own (for published comparisons).
        pixels: observe the rendered picture of a Gymnasium environment whose observations are no images.
        episode_frames: longest of the episodes that are collected, in environment frames, so that there are more
            beginnings among them; as long as the task has them if None. Evaluations run whole episodes.
        seed: of environments and sampling, ``seed_everything`` on the command line; ranks derive theirs from it.
        capacity: records the replay samples from, on each rank.
        prefill: records collected by random actions before the first update, on each rank.
        steps: steps of every environment in an epoch.
        updates: updates in an epoch.
        batch: sequences in a batch (on each rank).
        length: records in a sequence.
        store_features: run the encoder's frozen part once for each frame, when it is collected, and store what it
            makes of it. Updates are the same to the last digit, and faster.
    """

    def __init__(
        self,
        task: str = "cartpole_balance",
        action_repeat: int = 2,
        num_envs: int = 4,
        workers: bool = False,
        size: int = 64,
        camera: Cameras = None,
        quality: Quality = "fast",
        pixels: bool = False,
        episode_frames: int | None = None,
        seed: int = 0,
        capacity: int = 500_000,
        prefill: int = 1000,
        steps: int = 25,
        updates: int = 50,
        batch: int = 16,
        length: int = 32,
        store_features: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"steps": steps, "updates": updates, "batch": batch, "length": length - 1}.items():
            if value < 1:
                raise UserError(f"data.{name} is too small: it must be at least {2 if name == 'length' else 1}")
        self.task, self.num_envs, self.seed, self.capacity = task, num_envs, seed, capacity
        self.kind: type[Environments] = Workers if workers else InProcess
        self.settings: dict[str, Any] = {
            "size": size,
            "action_repeat": action_repeat,
            "camera": camera,
            "quality": quality,
            "pixels": pixels,
        }
        self.prefill, self.steps, self.updates, self.batch, self.length = prefill, steps, updates, batch, length
        self.store_features = store_features
        # made before there is a trainer, which needs the action
        collected = {**self.settings, "episode_frames": episode_frames}
        self.environments = self.kind(task, num_envs, seed + _RANK * launched_rank(), **collected)
        self.evaluation: Environments | None = None
        self.directory: Path | None = None
        self.resumed_random: dict[str, Any] | None = None
        self._replay: Replay | None = None
        self._collector: Collector | None = None
        self._frames_before = 0

    @property
    def action(self) -> ActionSpec:
        """What an action of the task is."""
        return self.environments.action

    @property
    def replay(self) -> Replay:
        if self._replay is None:
            raise RuntimeError("the replay is opened by setup(), once the run folder is known")
        return self._replay

    @property
    def collector(self) -> Collector:
        if self._collector is None:
            raise RuntimeError("the collector is made by setup(), once the run folder is known")
        return self._collector

    @property
    def frames(self) -> int:
        """Environment frames collected so far on this rank, action repeat included."""
        return self._frames_before if self._collector is None else self._collector.frames

    def setup(self, stage: str) -> None:
        if stage != "fit" or self._replay is not None:
            return
        if self.directory is None or self.trainer is None:
            raise RuntimeError("set directory, the run folder, before fitting")
        agent, rank = cast(Agent, self.trainer.lightning_module), self.trainer.global_rank
        features = frozen_features(agent) if self.store_features else None

        def look(image: Tensor) -> Tensor:
            return agent.world_model.encoder.features(image.to(agent.device))

        self._replay = _open(_shard(self.directory, rank), self, rank, features)
        self._collector = Collector(self.environments, self._replay, look if features else None)

    def fill(self) -> None:
        """Collect by random actions until ``prefill`` records are stored: whole episodes, so a few more."""
        policy = RandomPolicy(self.action)
        while len(self.replay) < max(self.prefill, self.length):
            self.collector.collect(policy, 1)

    def collect(self, policy: Policy) -> list[EpisodeSummary]:
        """One epoch's worth of steps."""
        return self.collector.collect(policy, self.steps)

    def evaluation_environments(self) -> Environments:
        """Environments with seeds that training never uses; made at the first call."""
        if self.evaluation is None:
            rank = 0 if self.trainer is None else self.trainer.global_rank
            seed = self.seed + _EVALUATION + _RANK * rank
            self.evaluation = self.kind(self.task, self.num_envs, seed, **self.settings)
        return self.evaluation

    def train_dataloader(self) -> Batches:
        return Batches(self)

    def val_dataloader(self) -> list[int]:
        """One item: an evaluation is one step of Lightning's validation loop."""
        return [0]

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume needs beside the replay's files: a list with an entry for each rank."""
        mine = {
            "collector": self.collector.state_dict(),
            "replay": self.replay.state_dict(),
            "random": random_state(),
        }
        ranks: list[Any] = [mine]
        if distributed.is_initialized():
            ranks = [None] * distributed.get_world_size()
            distributed.all_gather_object(ranks, mine)
        return {"ranks": ranks}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rank, world = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if self._collector is not None and len(state["ranks"]) != world:
            raise UserError(f"the checkpoint is of {len(state['ranks'])} processes, not {world}: keep trainer.devices")
        mine = state["ranks"][rank % len(state["ranks"])]
        self._frames_before = mine["collector"]["counters"][0]
        if self._collector is None:  # validating: nothing is collected
            return
        self.replay.load_state_dict(mine["replay"])
        self.collector.load_state_dict(mine["collector"])
        self.resumed_random = mine["random"]

    def restart(self) -> None:
        """Begin anew: drop what a run that never came to a checkpoint has left behind."""
        self.replay.load_state_dict(self.replay.state_dict() | {"first": 0, "next": 0})

    def teardown(self, stage: str) -> None:
        self.close()

    def close(self) -> None:
        """Stop all environments."""
        self.environments.close()
        if self.evaluation is not None:
            self.evaluation.close()
            self.evaluation = None


def open_replay(folder: Path | str, data: Experience, rank: int = 0) -> Replay:
    """The episodes of a run folder that were collected on ``rank``, as ``data`` describes them. Deletes none.

    Features that were stored with them are read as well, and are of use to that run's encoder alone: for another,
    ``batch._replace(features=None)``.

    Raises:
        UserError: they are of another image or action shape.
    """
    shard = _shard(folder, rank)
    return _open(shard, data, rank, stored_features(shard))


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


def _shard(folder: Path | str, rank: int) -> Path:
    return Path(folder) / "replay" / f"rank_{rank}"


def _open(shard: Path, data: Experience, rank: int, features: Features | None) -> Replay:
    return Replay(
        shard,
        image_shape=data.environments.image_shape,
        action_size=data.action.size,
        capacity=data.capacity,
        seed=data.seed + _RANK * rank,
        features=features,
    )
