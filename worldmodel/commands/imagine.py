"""``worldmodel imagine``: a film of what a model dreams, beside what happens.

Legend: N sequences, T time, H horizon, A action size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.control.controller import ActorController, Controller, LatentPolicy, MakeController
from worldmodel.errors import UserError
from worldmodel.experience.collector import Policy, observed
from worldmodel.experience.vector import Environments, EnvStep
from worldmodel.insight.clues import with_expected
from worldmodel.insight.render import render_film, render_strip
from worldmodel.insight.rollouts import open_loop, with_truth
from worldmodel.insight.video import write_gif, write_mp4
from worldmodel.model.world_model import WorldModel
from worldmodel.training.acting import read_policy
from worldmodel.training.agent import Agent
from worldmodel.training.calibrating import load_trust
from worldmodel.training.checkpoint import write_atomically
from worldmodel.training.loading import load_run
from worldmodel.training.randomness import own_randomness
from worldmodel.training.settings import reason
from worldmodel.types import ActionSpec, LatentState, SequenceBatch, Trajectory

_FPS = 8
_LARGEST = 100_000_000  # bytes of a file of actions
_WRITERS: dict[str, Callable[[Path, Trajectory[LatentState]], None]] = {
    ".mp4": lambda path, found: write_mp4(path, render_film(found), _FPS),
    ".gif": lambda path, found: write_gif(path, render_film(found), _FPS),
    ".png": lambda path, found: write_atomically(path, lambda whole: render_strip(found).save(whole, format="png")),
}


def imagine(
    run: str,
    out: str,
    checkpoint: str | None = None,
    horizon: int | None = None,
    context: int = 5,
    policy: str | None = None,
    actions: str | None = None,
    members: bool = True,
    sequences: int = 2,
    seed: int = 0,
    trust_code: bool = False,
) -> None:
    """Film dreams of held-out episodes: truth, the mixture's dream, each member's own, uncertainty, and reward.

    By itself the actor (or else the planner) acts in the real environment, and the dream takes its actions. With a
    policy that one acts in the dream, with actions those are taken; then the real environment is driven by the same.

    Args:
        run: the run's folder.
        out: the film, .mp4 or .gif, or .png for a picture with time from left to right.
        checkpoint: whose weights; best.ckpt if none is given, or last.ckpt where there is no best.
        horizon: records that are dreamt; 30 if none is given, or as many as there are actions.
        context: records that are seen before a dream.
        policy: who acts in the dream, a config such as policy/cem; "actor" for the run's own.
        actions: a file of actions to take in the dream, .npy or .csv, a row for each step (H, A).
        members: film every member's own dream as well.
        sequences: dreams, each of an episode of its own.
        seed: of how the episodes begin, and of what is drawn; with 0 they begin as those of validate do.
        trust_code: build whatever the run names, also code that is not of this package.

    Raises:
        UserError: there is no such run or file, it does not fit the run, or an episode is too short.
    """
    least = {"horizon": (horizon, 1), "context": (context, 1), "sequences": (sequences, 1), "seed": (seed, 0)}
    for name, (value, limit) in least.items():
        if value is not None and value < limit:
            raise UserError(f"{name} is {value}: it must be {limit} or more")
    write = _WRITERS.get(Path(out).suffix.lower())
    if write is None:
        raise UserError(f"cannot write {out}: its name has to end in {', '.join(_WRITERS)}")
    if policy and actions:
        raise UserError("either a policy acts in the dream or actions are given: leave out --policy or --actions")
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint}")
    other = read_policy(policy, trust_code) if policy and policy != "actor" else None
    agent, data = load_run(run, checkpoint, environments=sequences, trust_code=trust_code, to_draw=True)
    try:
        task = data.needed_task()
        with own_randomness(seed):
            own = _controller(agent, ActorController if agent.actor_critic is not None else agent.collect_with)
            imagining = (_controller(agent, other) if other else own) if policy else None
            given = None if actions is None else read_actions(actions, agent.action, horizon)
            if given is not None:
                given = given[None].repeat(sequences, 0)
            data.seed += seed
            real = Episodes(data.held_out("report"))
            found = _found(
                agent.world_model, real, own, imagining=imagining, given=given, context=context,
                horizon=horizon or 30, members=members,
            )  # fmt: skip
    finally:
        data.close()
    write(Path(out), _expected(Path(run), agent, task, found))
    print(f"wrote {out}")


def _expected(run: Path, agent: Agent, task: str, found: Trajectory[LatentState]) -> Trajectory[LatentState]:
    """The same with the errors to be expected, where the run holds a calibration; says so."""
    try:
        found = with_expected(agent.world_model, found, load_trust(run, agent, task))
    except UserError as cause:
        print(cause)
        return found
    assert found.trusted is not None
    steps = ", ".join(map(str, found.trusted.tolist()))
    print(f"steps that are likely better than the last picture, of each dream: {steps}")
    return found


class Episodes:
    """An episode of each of N environments, recorded from its beginning. One that ends is followed by another."""

    def __init__(self, environments: Environments) -> None:
        self._environments = environments
        self._steps: list[EnvStep] = []
        self._actions: list[np.ndarray] = []
        self._memory: list[Any] = []
        self._take(np.zeros((environments.num_envs, environments.action.size), np.float32))

    def follow(self, policy: Policy, count: int) -> None:
        """``count`` steps of a policy, always the same one."""
        memory = self._memory or [policy.initial(self._environments.num_envs)]
        for _ in range(count):
            now = self._steps[-1]
            action, memory[0] = policy(observed(now), memory[0])
            self._take(action.detach().float().cpu().numpy())
        self._memory = memory

    def take(self, actions: np.ndarray) -> None:
        """Steps by given actions (N, H, A)."""
        for action in actions.swapaxes(0, 1):
            self._take(action)

    def batch(self) -> SequenceBatch:
        """All records so far, (N, T)."""
        first = np.stack([step.is_first for step in self._steps], 1)
        action = np.stack(self._actions, 1) * ~first[:, :, None]
        names = ("image", "reward", *(["vector"] if self._environments.vector_size else []))
        columns = {name: np.stack([getattr(step, name) for step in self._steps], 1) for name in names}
        columns |= {"action": action, "is_first": first}
        columns["is_terminal"] = np.stack([step.is_terminal for step in self._steps], 1)
        tensors = {name: torch.from_numpy(x) for name, x in columns.items()}
        episode = torch.arange(len(first)).unsqueeze(1).expand(first.shape)
        return SequenceBatch(**tensors, episode=episode)

    def _take(self, action: np.ndarray) -> None:
        self._steps.append(self._environments.step(action))
        self._actions.append(action)


def _found(
    model: WorldModel,
    real: Episodes,
    own: Controller,
    *,
    imagining: Controller | None,
    given: np.ndarray | None,
    context: int,
    horizon: int,
    members: bool,
) -> Trajectory[LatentState]:
    """Who acts in the dream does so; else given actions (N, H, A) are taken, or those of the run's own policy."""
    policy = LatentPolicy(own)
    real.follow(policy, context - 1)
    if imagining is not None:
        path = open_loop(model, real.batch(), context, horizon, act=imagining.acting(), members=members)
        real.take(path.action[:, context - 1 :].cpu().numpy())
        return with_truth(model, path, _whole(real.batch(), context))
    if given is None:
        real.follow(policy, horizon)
    else:
        real.take(given)
    return open_loop(model, _whole(real.batch(), context), context, members=members)


def _whole(batch: SequenceBatch, context: int) -> SequenceBatch:
    """The same, if no episode ends in its context or by a time limit: then there is no truth to compare with."""
    begins = batch.is_first[:, 1:]  # (N, T - 1)
    over = begins & (begins.cumsum(1) == 1)
    over[:, context - 1 :] &= ~batch.is_terminal[:, context - 1 : -1]
    if over.any():
        total, last = batch.reward.shape[1], int(over.any(0).nonzero()[0]) + 1
        raise UserError(
            f"horizon {total - context} is longer than an episode: with {context} records seen before it takes "
            f"{total}, and an episode here has {last}"
        )
    return batch


def read_actions(path: str | Path, action: ActionSpec, horizon: int | None = None) -> np.ndarray:
    """Actions of a .npy or .csv file, (H, A) float32 in [-1, 1] or one-hot.

    Args:
        path: of the file; discrete actions are rows (H, A), of which the greatest is taken, or numbers (H,) from 0.
        action: what an action is.
        horizon: H, if not all of them.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    path, readers = Path(path), {".npy": _read_npy, ".csv": lambda file: np.loadtxt(file, delimiter=",", ndmin=2)}
    if path.suffix not in readers:
        raise UserError(f"cannot read the actions {path}: its name has to end in {' or '.join(readers)}")
    if not path.is_file():
        raise UserError(f"cannot read the actions {path}: there is no such file")
    if path.stat().st_size > _LARGEST:
        raise UserError(f"cannot read the actions {path}: it is larger than {_LARGEST / 1e6:g} MB")
    try:
        rows = np.asarray(readers[path.suffix](path), np.float32)
    except (OSError, EOFError, ValueError, TypeError) as cause:
        raise UserError(f"cannot read the actions {path}: {' '.join(str(cause).split())[:160]}") from cause
    numbers = rows if rows.ndim == 1 else rows[:, 0] if rows.ndim == 2 and rows.shape[1] == 1 else None
    if action.discrete and numbers is not None and action.size > 1:
        if not np.isin(numbers, np.arange(action.size)).all():
            raise UserError(f"the actions {path} must be whole numbers from 0 to {action.size - 1}")
        rows = np.eye(action.size, dtype=np.float32)[numbers.astype(int)]
    elif rows.ndim == 1 and action.size == 1:
        rows = rows[:, None]
    if rows.ndim != 2 or rows.shape[1] != action.size or not len(rows):
        raise UserError(f"the actions {path} are {rows.shape}: wanted are (H, {action.size}), a row for each step")
    if not (np.abs(rows) <= 1).all():
        raise UserError(f"the actions {path} must be in [-1, 1]")
    if horizon is not None and horizon > len(rows):
        raise UserError(f"horizon {horizon} is longer than the actions: {path} has {len(rows)}")
    rows = np.eye(action.size, dtype=np.float32)[rows.argmax(1)] if action.discrete else rows
    return rows[:horizon]


def _read_npy(path: Path) -> np.ndarray:
    rows = np.load(path, mmap_mode="r")  # takes no memory for what is only claimed to be there
    if not isinstance(rows, np.ndarray):
        raise ValueError("it holds several arrays")
    if rows.dtype.kind not in "fiub":
        raise ValueError(f"it holds {rows.dtype}, and not numbers")
    return rows


def _controller(agent: Agent, make: MakeController) -> Controller:
    """Who acts in evaluations of this agent.

    Raises:
        UserError: it cannot act here.
    """
    try:
        controller = agent.controller(False, make)
        controller.check()
    except ValueError as cause:
        raise UserError(reason(cause)) from cause
    return controller
