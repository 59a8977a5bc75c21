"""Real episodes that dreams begin in, and the simulator that is stepped beside a dream.

Legend: L records, A action size, H x W pixels. Records are aligned as in ``worldmodel.types``.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import torch

from worldmodel.errors import UserError
from worldmodel.experience.collector import Policy, observed
from worldmodel.experience.replay import Replay
from worldmodel.experience.vector import Environments


class Recorded(NamedTuple):
    """A real episode."""

    name: str  # such as who acted in it
    image: np.ndarray  # (L, 3, H, W) uint8
    action: np.ndarray  # (L, A) float32
    reward: np.ndarray  # (L,) float32
    number: int | None = None  # by which a ReplayableEnv can play it again; None where none can
    vector: np.ndarray | None = None  # (L, V) float32, beside the images


class RealStep(NamedTuple):
    """What the simulator answers to an action."""

    image: np.ndarray  # (3, H, W) uint8
    reward: float
    ended: bool  # the episode ends here, for whatever reason
    vector: np.ndarray | None = None  # (V,) float32, beside the image


class SeenRecord(NamedTuple):
    """One of those that a dream was shown."""

    image: np.ndarray  # (3, H, W) uint8
    action: np.ndarray  # (A,)
    reward: float
    vector: np.ndarray | None  # (V,)


class SeenRecords:
    """The real records of a dream, up to the last one that could be seen: the newest ``most``.

    Args:
        most: as many are kept.
    """

    def __init__(self, most: int) -> None:
        self._records: deque[SeenRecord] = deque(maxlen=most)
        self._count = 0

    @property
    def last(self) -> SeenRecord:
        return self._records[-1]

    def begin(self, episode: Recorded, record: int) -> None:
        """Nothing but an episode's records up to this one."""
        self._records.clear()
        self._count = max(0, record + 1 - (self._records.maxlen or 0))
        for t in range(self._count, record + 1):
            vector = None if episode.vector is None else episode.vector[t]
            self.add(SeenRecord(episode.image[t], episode.action[t], float(episode.reward[t]), vector))

    def add(self, record: SeenRecord) -> None:
        self._records.append(record)
        self._count += 1

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, bool]:
        """Images (T, 3, H, W), actions (T, A), vectors (T, V), and whether the first of them begins the episode."""
        images, actions, _, vectors = zip(*self._records, strict=True)
        beside = None if vectors[0] is None else np.stack(vectors)
        return np.stack(images), np.stack(actions), beside, self._count == len(self._records)


class ReplayableEnv:
    """One environment that plays an episode again up to a record, and goes on from there under other actions.

    Seed and actions determine every state, so the start is the same to the last bit.

    Args:
        environments: a vector of one.

    Raises:
        ValueError: there are more.
    """

    def __init__(self, environments: Environments) -> None:
        if environments.num_envs != 1:
            raise ValueError(f"reality is one environment, got {environments.num_envs}: set num_envs to 1")
        self._environments, self._next, self._running = environments, 0, False

    @property
    def running(self) -> bool:
        """Whether there is an episode that is not over."""
        return self._running

    def record(self, policy: Policy, name: str) -> Recorded:
        """Run the next whole episode; the n-th call gives episode n, whoever acts."""
        environments, number = self._environments, self._next
        nothing = np.zeros((1, environments.action.size), np.float32)
        environments.load_state_dict({"episodes": [number], "running": [False], "actions": [nothing[:0]]})
        action, memory = nothing, policy.initial(1)
        step = environments.step(nothing)
        rows = [(step.image[0], nothing[0], step.reward[0], step.vector)]
        while not step.is_last[0]:
            with torch.no_grad():
                drawn, memory = policy(observed(step), memory)
            action = drawn.float().cpu().numpy()
            step = environments.step(action)
            rows.append((step.image[0], action[0], step.reward[0], step.vector))
        self._next, self._running = number + 1, False
        images, actions, rewards, vectors = zip(*rows, strict=True)
        return Recorded(
            name=name,
            image=np.stack(images),
            action=np.stack(actions),
            reward=np.stack(rewards),
            number=number,
            vector=np.concatenate(vectors) if environments.vector_size else None,
        )

    def begin(self, episode: Recorded, record: int) -> None:
        """Bring the simulator to a record of an episode.

        Raises:
            ValueError: the episode has no number.
        """
        if episode.number is None:
            raise ValueError(f"the episode {episode.name!r} cannot be played again: its number is not known")
        actions = episode.action[1 : record + 1]
        state = {"episodes": [episode.number + 1], "running": [True], "actions": [actions]}
        self._environments.load_state_dict(state)
        self._running = True

    def step(self, action: np.ndarray) -> RealStep | None:
        """Take an action (A,), one-hot when discrete. None where the episode is over."""
        if not self._running:
            return None
        step = self._environments.step(action[None])
        self._running = not step.is_last[0]
        vector = None if step.vector is None else step.vector[0]
        return RealStep(step.image[0], float(step.reward[0]), bool(step.is_last[0]), vector)

    def close(self) -> None:
        self._environments.close()


def from_replay(replay: Replay, count: int = 4) -> list[Recorded]:
    """The newest ``count`` episodes of a replay that have ended, or where none has, those that are under way.

    Their seeds are not stored, so they cannot be played again.

    Raises:
        UserError: the replay is empty.
    """
    episodes = list(replay.episodes(count, ended=True)) or list(replay.episodes(count))
    if not episodes:
        raise UserError(f"the replay {replay.directory} is empty: collect some records first")
    return [
        Recorded(
            f"episode {number}",
            image=x["image"].copy(),
            action=x["action"].copy(),
            reward=x["reward"].copy(),
            vector=x["vector"].copy() if "vector" in (x.dtype.names or ()) else None,
        )
        for number, x in episodes
    ]
