"""Tasks, their holes, and data with and without them. Legend: N sequences, T records, S physics state, A action."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch

from worldmodel.experience.environments import make_environment
from worldmodel.experience.replay import Replay, record_dtype
from worldmodel.types import SequenceBatch

LIMIT = 0.7  # no action in the data is stronger, of the component that has the hole
CONTEXT = 5  # records that are filtered before a dream begins


class Task(NamedTuple):
    """A task with two holes: ``edge < state[axis] < far``, and ``abs(action[component]) > LIMIT``."""

    name: str
    environment: str
    action_repeat: int
    size: int
    episodes: int  # of training
    held_out: int  # sequences of each kind
    axis: int
    edge: float
    component: int
    steps: int  # of an episode
    far: float
    across: tuple[float, float]  # range of the next axis
    either: bool = False  # the hole lies on either side: it is the state's size that counts
    guide: tuple[float, ...] = ()  # the part of an action per unit of each of the state's axes, beneath the noise

    def in_hole(self, state: np.ndarray) -> np.ndarray:
        """(*N, S) -> (*N,) bool."""
        along = np.abs(state[..., self.axis]) if self.either else state[..., self.axis]
        return (self.edge < along) & (along < self.far)

    def make(self) -> gymnasium.Env:
        return make_environment(self.environment, size=self.size, action_repeat=self.action_repeat)


TASKS = {
    "point_swamp": Task(
        "point_swamp", "worldmodel.experience.toy:PointSwamp", 1, 16, 400, 300, 0, 0.0, 1, 32, 0.5, (-1, 1)
    ),
    "point_aside": Task(
        "point_aside", "worldmodel.experience.toy:PointAside", 1, 16, 400, 300, 0, 0.2, 1, 32, 1.01, (-1, 1)
    ),
    "cartpole_swingup": Task("cartpole_swingup", "cartpole_swingup", 8, 64, 300, 200, 0, 0.6, 0, 125, 2.0, (0, 6.2832)),
    # who keeps the pole up, from well to hardly: an episode ends before it has tipped over
    "cartpole_balance": Task(
        "cartpole_balance", "cartpole_balance", 8, 64, 150, 80, 1, 0.3, 0, 125, 1e9, (-2, 2), True, (0.1, 4.0, 0.3, 1.0)
    ),
    # the torso has turned one way; the wrist is bent one way; the finger's tip too
    "walker_walk": Task("walker_walk", "walker_walk", 2, 64, 100, 200, 2, 1.0, 0, 500, 1e9, (-0.4, 1.8)),
    "reacher_easy": Task("reacher_easy", "reacher_easy", 4, 64, 200, 200, 1, 1.0, 0, 250, 1e9, (-3, 3)),
    "finger_spin": Task("finger_spin", "finger_spin", 2, 64, 100, 200, 1, 0.7, 0, 500, 1e9, (-3.1416, 3.1416)),
}


class Sequences(NamedTuple):
    """Held-out sequences, and the physics state behind each record."""

    batch: SequenceBatch  # (N, T)
    state: np.ndarray  # (N, T, S)

    def take(self, where: slice | np.ndarray) -> Sequences:
        return Sequences(self.batch.map(lambda x: x[where]), self.state[where])


def behave(rng: np.random.Generator, action: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The next action (A,) of a behaviour that changes its mind slowly, within +-limit (A,)."""
    return np.clip(0.5 * action + rng.uniform(-1, 1, action.shape), -limit, limit).astype(np.float32)


def episode(
    task: Task, env: gymnasium.Env, seed: int, careful: bool, strong: bool, most: int = 10_000
) -> tuple[np.ndarray, np.ndarray]:
    """Records (L,) of one episode and the states (L, S) behind them.

    Args:
        task: what is played.
        env: where.
        seed: of the episode.
        careful: begin it outside of the hole of states, and end it before it enters.
        strong: take the actions of the other hole too.
        most: records after which to stop.
    """
    rng = np.random.default_rng(seed)
    size = int(np.prod(env.action_space.shape or ()))
    limit = np.ones(size)
    limit[task.component] = 1.0 if strong else LIMIT
    dtype = record_dtype((3, task.size, task.size), size)
    image, info = env.reset(seed=seed)
    while careful and task.in_hole(info["state"]):
        image, info = env.reset()  # goes on with the generator of the seed
    action, records, states = np.zeros(size, np.float32), [], [info["state"]]
    noise, drift = rng.uniform(0, 1) if task.guide else 1.0, action
    records.append(np.array([(image, action, 0.0, True, False)], dtype))
    done = False
    while not done:
        drift = behave(rng, drift, limit)
        guided = np.dot(task.guide, states[-1]) if task.guide else 0.0
        action = np.clip(noise * drift + guided, -limit, limit).astype(np.float32)
        image, reward, terminal, cut, info = env.step(action)
        if careful and task.in_hole(info["state"]):
            break
        records.append(np.array([(image, action, reward, False, terminal)], dtype))
        states.append(info["state"])
        done = terminal or cut or len(records) >= most
    return np.concatenate(records), np.stack(states)


def training_data(task: Task, folder: Path) -> Replay:
    """The replay with both holes in it, collected once."""
    env = task.make()
    size = int(np.prod(env.action_space.shape or ()))
    replay = Replay(folder, image_shape=(3, task.size, task.size), action_size=size)
    for seed in range(replay.num_episodes, task.episodes):
        records, _ = episode(task, env, seed, careful=True, strong=False)
        replay.add_episode(records)
    env.close()
    return replay


KINDS = {"seen": (True, False, 1), "state": (False, False, 2), "action": (True, True, 3)}


def held_out(task: Task, folder: Path, length: int, kinds: tuple[str, ...] = tuple(KINDS)) -> dict[str, Sequences]:
    """Sequences of ``length`` records that nobody trains on, collected once.

    ``seen`` has neither hole in it, ``state`` passes through the hole of states, ``action`` has strong actions.
    """
    found = {}
    for name in kinds:
        careful, strong, number = KINDS[name]
        path = folder / f"{name}_{length}.npz"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            arrays = _windows(task, careful, strong, number, length)
            temporary = path.with_suffix(".tmp.npz")
            np.savez_compressed(temporary, **arrays)
            temporary.replace(path)
        found[name] = _load(path)
    return found


def _windows(task: Task, careful: bool, strong: bool, number: int, length: int) -> dict[str, np.ndarray]:
    env, parts, states, seed = task.make(), [], [], number * 1_000_000
    while len(parts) < task.held_out:
        records, behind = episode(task, env, seed, careful, strong, most=3 * length)
        seed += 1
        # one window of an episode: windows are independent of each other
        first = int(np.random.default_rng(seed).integers(max(1, len(records) - length + 1)))
        inside = task.in_hole(behind)
        if not careful and inside.any():  # so that it passes the edge in the middle of the window
            first = int(np.clip(inside.argmax() - length // 2, 0, max(0, len(records) - length)))
        if len(records) >= first + length and (careful or inside[first : first + length].any()):
            parts.append(records[first : first + length])
            states.append(behind[first : first + length])
    env.close()
    rows = np.stack(parts)  # (N, T)
    return {name: rows[name] for name in rows.dtype.names or ()} | {"state": np.stack(states)}


def _load(path: Path) -> Sequences:
    with np.load(path, allow_pickle=False) as arrays:
        fields: dict[str, Any] = {n: torch.from_numpy(arrays[n]) for n in arrays.files if n != "state"}
        state = arrays["state"]
    n, t = fields["reward"].shape
    number = torch.arange(n).unsqueeze(1).expand(n, t)
    return Sequences(SequenceBatch(**fields, episode=number), state)
