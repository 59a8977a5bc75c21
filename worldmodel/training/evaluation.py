"""Whole episodes in environments that training never sees, and what they leave in the run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import worldmodel
from worldmodel.control.controller import LatentPolicy
from worldmodel.experience.collector import Policy, run_episodes
from worldmodel.insight.render import render_film, render_strip
from worldmodel.insight.rollouts import longest, open_loop
from worldmodel.insight.video import write_mp4
from worldmodel.training.agent import Agent
from worldmodel.training.checkpoint import write_atomically
from worldmodel.training.interrupt import Interrupted, Stop
from worldmodel.training.randomness import own_randomness, seed_for
from worldmodel.training.run_folder import RunFolder
from worldmodel.training.world import World
from worldmodel.types import Observation

_CONTEXT = 5  # records that are seen before an open-loop rollout


class Evaluation(NamedTuple):
    """Returns of all episodes on all ranks, and a video (T, H, W, 3) uint8 of the first."""

    returns: list[float]
    video: np.ndarray | None

    @property
    def mean(self) -> float:
        return sum(self.returns) / len(self.returns)


class Interruptible:
    """A policy that leaves off as soon as a signal has come.

    Args:
        policy: who acts.
        stop: notes the signal.
    """

    def __init__(self, policy: LatentPolicy, stop: Stop) -> None:
        self.controller = policy.controller
        self._policy, self._stop = policy, stop

    def initial(self, n: int) -> Any:
        return self._policy.initial(n)

    def __call__(self, observation: Observation, state: Any) -> tuple[Tensor, Any]:
        if self._stop.number:
            raise Interrupted(self._stop.number)
        return self._policy(observation, state)


def evaluate(world: World, episodes: int, purpose: str = "evaluation", stop: Stop | None = None) -> Evaluation:
    """Let the agent act, as surely as it can, the same episodes each time, shared out over the ranks.

    Whether one evaluates changes nothing: random numbers are its own.

    Args:
        world: whose agent, and whose environments held out for the purpose.
        episodes: how many, on all ranks together; at least one on each.
        purpose: see ``Experience.held_out``.
        stop: a signal, if there was one.

    Raises:
        Interrupted: it came while this went on; not where there are several ranks, of which each has its own pace.
    """
    fabric, agent, data = world.fabric, world.agent, world.data
    with own_randomness(seed_for(data.seed, data.rank, f"{purpose}: draws")), evaluating(agent), torch.no_grad():
        share = max(1, episodes // fabric.world_size)
        policy: Policy = agent.policy(explore=False)
        if stop is not None and fabric.world_size == 1:
            policy = Interruptible(agent.policy(explore=False), stop)
        found = run_episodes(data.held_out(purpose), policy, share, record_video=True)
    returns = [episode.return_ for episode in found]
    if fabric.world_size > 1:  # in float64: many large rewards are more than float32 holds
        gathered = fabric.all_gather(torch.tensor(returns, device=fabric.device, dtype=torch.float64))
        assert isinstance(gathered, Tensor)
        returns = gathered.flatten().tolist()
    return Evaluation(returns, found[0].video)


def record(folder: RunFolder, world: World, found: Evaluation, seconds: float) -> None:
    """A line in ``evaluations.jsonl``, and a film of an episode; on the first rank."""
    row = _row(world, found, seconds) | {"starts": "evaluation"}
    if world.fabric.is_global_zero:
        folder.add_evaluation(row)
        _film(folder.film_to_be(world.agent.updates), found)


def record_validation(folder: RunFolder, world: World, found: Evaluation, seconds: float, checkpoint: Path) -> None:
    """A line in ``validations.jsonl``: whose weights, in which episodes, when; and a film. On the first rank.

    Args:
        folder: of the run.
        world: that was evaluated.
        found: what came of it.
        seconds: of training that the weights had.
        checkpoint: their file.
    """
    row = _row(world, found, seconds) | {
        "starts": "report",
        "seed": world.data.seed,
        "checkpoint": checkpoint.name,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "version": worldmodel.__version__,
    }
    if world.fabric.is_global_zero:
        folder.add_validation(row)
        _film(folder.film_to_be(world.agent.updates, row["policy"]), found)


def _row(world: World, found: Evaluation, seconds: float) -> dict[str, Any]:
    """Every rank has to ask."""
    return {
        "frames": world.frames,
        "updates": world.agent.updates,
        "seconds": round(seconds, 1),
        "policy": world.agent.controller(explore=False).name,
        "returns": [round(x, 3) for x in found.returns],
        "return_mean": round(found.mean, 3),
        "return_std": round(float(np.std(found.returns)), 3),
    }


def _film(path: Path, found: Evaluation) -> None:
    if found.video is not None:
        write_mp4(path, found.video, fps=25)


def film_rollouts(folder: RunFolder, world: World) -> None:
    """Open-loop rollouts beside the truth, of sequences of the replay, as PNG and mp4; on the first rank.

    None of a model without a decoder.
    """
    if not world.fabric.is_global_zero or not world.agent.world_model.draws:
        return
    with own_randomness(0), world.replay.aside(), evaluating(world.agent):
        batch = longest(world.replay.sample(8, max(world.data.length, 20)), _CONTEXT, 4)
        rollout = open_loop(world.agent.world_model, batch.map(lambda x: x.to(world.fabric.device)), _CONTEXT)
    path = folder.videos / f"open_loop_{world.agent.updates:07d}.png"
    strip = render_strip(rollout, difference=True)
    write_atomically(path, lambda temporary: strip.save(temporary, format="png"))
    write_mp4(path.with_suffix(".mp4"), render_film(rollout, difference=True), fps=8)


@contextmanager
def evaluating(agent: Agent) -> Iterator[None]:
    """Inside, the agent is in evaluation mode and has the mean of its weights."""
    before = agent.training
    agent.eval()
    try:
        with agent.average.applied():
            yield
    finally:
        agent.train(before)
