"""Steps environments with a policy: into a replay, or for evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from worldmodel.control.controller import random_action
from worldmodel.errors import UserError
from worldmodel.experience.replay import Replay
from worldmodel.experience.vector import Environments, EnvStep
from worldmodel.types import ActionSpec, Observation


class Policy(Protocol):
    """Chooses actions for N environments at once. Handles ``observation.is_first`` itself."""

    def initial(self, n: int) -> Any:
        """The state before the first observation: any pytree of tensors, batch first, or None. Draws nothing."""
        ...

    def __call__(self, observation: Observation, state: Any) -> tuple[Tensor, Any]:
        """Action (N, A), one-hot when discrete, and the next state."""
        ...


class RandomPolicy:
    """``random_action``, without a model."""

    def __init__(self, action: ActionSpec) -> None:
        self._action = action

    def initial(self, n: int) -> None:
        return None

    def __call__(self, observation: Observation, state: None) -> tuple[Tensor, None]:
        return random_action(self._action, len(observation.is_first)), None


class EpisodeSummary(NamedTuple):
    """One finished episode of training."""

    return_: float
    frames: int  # environment frames, action repeat included
    steps: int
    is_cut: bool  # by the death of a worker


_BEGUN = EpisodeSummary(0.0, 0, 0, False)


class Episode(NamedTuple):
    """One whole episode of evaluation."""

    return_: float
    frames: int
    steps: int
    video: np.ndarray | None  # (T, H, W, 3) uint8


def observed(step: EnvStep, features: Tensor | None = None) -> Observation:
    """What a policy sees of a step: images, their features if those are known, and vectors if there are any."""
    vector = None if step.vector is None else torch.from_numpy(step.vector)
    return Observation(torch.from_numpy(step.image), torch.from_numpy(step.is_first), features, vector)


class _Actor:
    """A policy's memory between steps. It lasts for as long as the policy is of the same kind."""

    def __init__(self, action: ActionSpec) -> None:
        self._spec, self._kind, self._state = action, "", None
        self._saved: list[Any] | None = None

    def act(self, policy: Policy, step: EnvStep, features: Tensor | None = None) -> np.ndarray:
        self._take(policy, len(step.is_first))
        observation = observed(step, features)
        with torch.no_grad():
            action, self._state = policy(observation, self._state)
        return _bounded(action.detach().float().cpu().numpy(), self._spec)

    def _take(self, policy: Policy, n: int) -> None:
        kind = " ".join(type(x).__qualname__ for x in (policy, getattr(policy, "controller", None)))
        if kind == self._kind and self._saved is None:
            return
        initial = policy.initial(n)
        self._state = initial
        if kind == self._kind and self._saved is not None:
            leaves, spec = pytree.tree_flatten(initial)
            self._state = pytree.tree_unflatten([_like(*pair) for pair in zip(self._saved, leaves, strict=True)], spec)
        self._kind, self._saved = kind, None

    def state_dict(self) -> dict[str, Any]:
        leaves = self._saved if self._saved is not None else pytree.tree_leaves(self._state)
        return {"kind": self._kind, "leaves": leaves}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kind, self._saved = state["kind"], state["leaves"]


def _bounded(action: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Actions (N, A) as they are taken: in [-1, 1], or one-hot. What is not finite stays, to be refused."""
    if not spec.discrete:
        return action.clip(-1, 1)
    chosen = (action == action.max(-1, keepdims=True)).astype(np.float32)
    return chosen * (chosen.cumsum(-1) == 1) if np.isfinite(action).all() else action


def _like(saved: Any, initial: Any) -> Any:
    return saved.to(initial.device) if isinstance(initial, Tensor) else saved


class Collector:
    """Fills a replay, a stream for each environment, as the steps are taken.

    ``frames`` counts environment frames, action repeat included; ``steps`` vector steps; ``episodes`` those that ended.
    Where a worker dies its episode is cut: what was seen of it stays, as of one that a time limit ends.
    Actions are stored as they were taken: within [-1, 1], or one-hot.

    Args:
        environments: what is stepped.
        replay: what is filled.
        look: makes features (N, *E) of images (N, 3, H, W) uint8, once for each frame: the replay stores them, and the
            policy is given them.

    Raises:
        ValueError: the replay stores features and there is no ``look``, or the other way round.
    """

    def __init__(
        self, environments: Environments, replay: Replay, look: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        if (look is None) != (replay.features is None):
            raise ValueError("features are stored by a replay that is opened with them and a collector with a look")
        self._environments, self._replay, self._look = environments, replay, look
        self._actor = _Actor(environments.action)
        self._step: EnvStep | None = None
        self._features: Tensor | None = None  # of that step's images
        self._running = [_BEGUN] * environments.num_envs
        self.frames, self.steps, self.episodes = 0, 0, 0

    def collect(self, policy: Policy, steps: int) -> list[EpisodeSummary]:
        """Take ``steps`` vector steps. Returns the episodes that ended.

        Raises:
            UserError: the disk is full, or an environment failed.
        """
        finished = []
        for _ in range(steps):
            action = np.zeros((self._environments.num_envs, self._environments.action.size), np.float32)
            if self._step is not None:
                action = self._actor.act(policy, self._step, self._features)
            step = self._environments.step(action)
            self._step = step
            self._features = None if self._look is None else self._look(torch.from_numpy(step.image))
            features = None if self._features is None else self._features.cpu().numpy()
            self.steps += 1
            self.frames += int(step.frames.sum())
            for index in range(self._environments.num_envs):
                if not step.is_cut[index]:  # or nothing was seen
                    self._record(index, step, action[index], None if features is None else features[index])
                if step.is_last[index]:
                    finished.append(self._running[index]._replace(is_cut=bool(step.is_cut[index])))
                    self._running[index] = _BEGUN
                    self.episodes += 1
        return finished

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs beside the replay's state: tensors, numbers, strings, lists and dicts."""
        environments = self._environments.state_dict()
        environments["actions"] = [torch.from_numpy(actions) for actions in environments["actions"]]
        step = None
        if self._step is not None:
            step = {k: torch.from_numpy(v) for k, v in self._step._asdict().items() if v is not None}
        return {
            "environments": environments,
            "step": step,
            "features": None if self._features is None else self._features.cpu(),
            "running": [list(episode) for episode in self._running],
            "policy": self._actor.state_dict(),
            "counters": [self.frames, self.steps, self.episodes],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a saved moment, of which the replay has its own; environments replay their unfinished episodes.

        Raises:
            UserError: the state is of another number of environments.
        """
        self._environments.load_state_dict(state["environments"])
        self._step = None if state["step"] is None else EnvStep(**{k: v.numpy() for k, v in state["step"].items()})
        self._features = state["features"]
        self._running = [EpisodeSummary(*episode) for episode in state["running"]]
        for index in [] if self._step is None else self._environments.leave(self._step):
            warnings.warn(
                f"environment {index} did not come back to where it was, with the same seed and actions: its episode "
                "ends there, and resuming is not exact",
                stacklevel=2,
            )
            self._running[index] = _BEGUN
        self._actor.load_state_dict(state["policy"])
        self.frames, self.steps, self.episodes = state["counters"]

    def _record(self, index: int, step: EnvStep, action: np.ndarray, features: np.ndarray | None) -> None:
        record = np.zeros(1, self._replay.dtype)
        record["image"], record["reward"] = step.image[index], step.reward[index]
        record["action"] = 0 if step.is_first[index] else action
        record["is_first"], record["is_terminal"] = step.is_first[index], step.is_terminal[index]
        if features is not None:
            record["features"] = features
        if step.vector is not None:
            record["vector"] = step.vector[index]
        self._replay.add(index, record)
        return_, frames, steps, _ = self._running[index]
        self._running[index] = EpisodeSummary(
            return_ + float(step.reward[index]),
            frames + int(step.frames[index]),
            steps + (not step.is_first[index]),
            False,
        )


class IdleCollector:
    """Collects nothing, where what is there is all there is to learn from."""

    frames = steps = episodes = 0

    def collect(self, policy: Policy, steps: int) -> list[EpisodeSummary]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            raise UserError("the checkpoint is of a run that collects: it does not go on without its environments")


def run_episodes(
    environments: Environments,
    policy: Policy,
    episodes: int,
    record_video: bool = False,
) -> list[Episode]:
    """Run whole episodes for evaluation, the same ones each time, spread over the environments.

    Each environment has a fixed share, so short episodes are not favoured. An episode cut by a worker's death is
    run again with the next start.

    Returns:
        Exactly ``episodes`` episodes; with ``record_video`` the first has its frames.
    """
    n = environments.num_envs
    environments.restart()
    share = [episodes // n + (index < episodes % n) for index in range(n)]
    runs: list[list[Episode]] = [[] for _ in range(n)]
    current = [Episode(0.0, 0, 0, None)] * n
    video: list[np.ndarray] = []
    active = [count > 0 for count in share]
    actor, nothing = _Actor(environments.action), np.zeros((n, environments.action.size), np.float32)
    step = environments.step(nothing, active)
    filming = record_video
    while True:
        if filming:
            video.append(step.image[0].transpose(1, 2, 0))
        for index in range(n):
            run = current[index]
            if step.is_first[index]:
                run = Episode(0.0, 0, 0, None)
            elif not step.is_cut[index]:
                run = Episode(
                    run.return_ + float(step.reward[index]),
                    run.frames + int(step.frames[index]),
                    run.steps + 1,
                    None,
                )
            current[index] = run
            if step.is_last[index] and not step.is_cut[index] and len(runs[index]) < share[index]:
                runs[index].append(run)
        if filming and step.is_last[0]:
            filming = bool(step.is_cut[0])
            video = [] if step.is_cut[0] else video
        active = [len(run) < count for run, count in zip(runs, share, strict=True)]
        if not any(active):
            break
        step = environments.step(actor.act(policy, step), active)
    if video:
        runs[0][0] = runs[0][0]._replace(video=np.stack(video))
    return [run for runs_of_one in runs for run in runs_of_one]
