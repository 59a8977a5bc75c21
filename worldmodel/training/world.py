"""What one rank trains with: environments, replay, collector and agent, each with seeds of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, distributed

from worldmodel.errors import UserError
from worldmodel.experience.collector import Collector, IdleCollector
from worldmodel.training.agent import Agent
from worldmodel.training.data import Experience, frozen_features
from worldmodel.training.randomness import random_state, seed_all, seed_for, set_random_state
from worldmodel.types import ActionSpec, SequenceBatch


class World:
    """Made after the processes are launched. Parameters are the same on every rank, all else differs.

    Args:
        fabric: of the processes.
        data: environments and replay, described.
        make_agent: the agent, from what an action is and how many numbers stand beside an image.
        seed: everything derives from it, the rank, and the purpose.
    """

    def __init__(
        self, fabric: Fabric, data: Experience, make_agent: Callable[[ActionSpec, int], Agent], seed: int
    ) -> None:
        self.fabric, self.data = fabric, data
        data.seed, data.rank = seed, fabric.global_rank
        action, vector_size = data.action, data.vector_size
        seed_all(seed_for(seed, 0, "parameters"))
        self.agent = make_agent(action, vector_size).setup(fabric)
        seed_all(seed_for(seed, data.rank, "draws"))

    def open(self, folder: Path) -> None:
        """Open the replay in a run folder, and get ready to collect, if that is done at all.

        Raises:
            UserError: it holds something else, or features are to be stored and nothing of the encoder is frozen, or
                the task to evaluate in is not the data's.
        """
        features = frozen_features(self.agent) if self.data.store_features else None

        def look(image: Tensor) -> Tensor:
            return self.agent.world_model.encoder.features(image.to(self.fabric.device))

        self.replay = self.data.open_replay(folder, features)
        self.collector: Collector | IdleCollector = IdleCollector()
        if not self.data.offline:
            self.collector = Collector(self.data.environments, self.replay, look if features else None)
        elif self.data.task is not None:
            self.data.held_out("evaluation")  # complains now

    @property
    def frames(self) -> int:
        """Environment frames collected so far on all ranks, which ask together; action repeat included."""
        if not hasattr(self, "collector"):
            return self.data.frames
        return self.total(self.collector.frames)

    def total(self, count: int) -> int:
        """The sum of a number over the ranks."""
        return self._reduced(count, "sum")

    def most(self, count: int) -> int:
        """The greatest of a number over the ranks."""
        return self._reduced(count, "max")

    def _reduced(self, count: int, operation: str) -> int:
        if self.fabric.world_size == 1:
            return int(count)
        mine = torch.tensor(int(count), device=self.fabric.device)
        return int(cast(Tensor, self.fabric.all_reduce(mine, reduce_op=operation)))

    def sample(self) -> SequenceBatch:
        """Sequences (B, T) from the replay, on the device of the updates."""
        batch = self.replay.sample(self.data.batch, self.data.length)
        return batch.map(lambda x: x.to(self.fabric.device, non_blocking=True))

    def fit_statistics(self) -> None:
        """Take pixel statistics of about a thousand images of each rank's replay; the same for all.

        A world model that is frozen keeps its own.
        """
        if self.agent.frozen:
            return
        batch = self.replay.sample(max(1, 1024 // self.data.length), self.data.length)
        image = batch.image.flatten(0, 1).to(self.fabric.device)  # (N, 3, H, W)
        if self.fabric.world_size > 1:
            image = self.fabric.all_gather(image).flatten(0, 1)  # type: ignore[union-attr]
        self.agent.world_model.fit_statistics(image)

    def state_dict(self) -> dict[str, Any]:
        """Everything but what is on the disk already; every rank has to ask."""
        mine = {
            "collector": self.collector.state_dict(),
            "replay": self.replay.state_dict(),
            "random": random_state(),
        }
        ranks: list[Any] = [mine]
        if distributed.is_initialized():
            ranks = [None] * self.fabric.world_size
            distributed.all_gather_object(ranks, mine)
        return {
            "state_dict": self.agent.state_dict(),
            "optimizer": self.agent.optimizer.state_dict(),
            "average": self.agent.average.state_dict(),
            "updates": self.agent.updates,
            "frames": self.frames,
            "ranks": ranks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a saved moment. What the replay was given later is dropped: it is collected again, the same.

        Raises:
            UserError: it is of another number of ranks, or does not fit, or the replay has lost what it needs.
        """
        ranks, world = state["ranks"], self.fabric.world_size
        if len(ranks) != world:
            raise UserError(f"the checkpoint is of {len(ranks)} processes, not {world}: keep fabric.devices")
        mine = ranks[self.fabric.global_rank]
        self.agent.load_state_dict(state["state_dict"])
        self.agent.optimizer.load_state_dict(state["optimizer"])
        self.agent.average.load_state_dict(state["average"])
        self.replay.load_state_dict(mine["replay"])
        self.collector.load_state_dict(mine["collector"])
        set_random_state(mine["random"])
