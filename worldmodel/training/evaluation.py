"""Whole episodes in environments that training never sees, and what they leave in the run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from worldmodel.experience.collector import run_episodes
from worldmodel.insight.render import render_film, render_strip
from worldmodel.insight.rollouts import longest, open_loop
from worldmodel.insight.video import write_mp4
from worldmodel.training.agent import Agent
from worldmodel.training.checkpoint import write_atomically
from worldmodel.training.randomness import own_randomness, seed_for
from worldmodel.training.run_folder import RunFolder
from worldmodel.training.world import World

_CONTEXT = 5  # records that are seen before an open-loop rollout


class Evaluation(NamedTuple):
    """Returns of all episodes on all ranks, and a video (T, H, W, 3) uint8 of the first."""

    returns: list[float]
    video: np.ndarray | None

    @property
    def mean(self) -> float:
        return sum(self.returns) / len(self.returns)


def evaluate(world: World, episodes: int, purpose: str = "evaluation") -> Evaluation:
    """Let the agent act, as surely as it can, the same episodes each time, shared out over the ranks.

    Whether one evaluates changes nothing: random numbers are its own.

    Args:
        world: whose agent, and whose environments held out for the purpose.
        episodes: how many, on all ranks together; at least one on each.
        purpose: see ``Experience.held_out``.
    """
    fabric, agent, data = world.fabric, world.agent, world.data
    with own_randomness(seed_for(data.seed, data.rank, f"{purpose}: draws")), evaluating(agent), torch.no_grad():
        share = max(1, episodes // fabric.world_size)
        found = run_episodes(data.held_out(purpose), agent.policy(explore=False), share, record_video=True)
    returns = fabric.all_gather(torch.tensor([episode.return_ for episode in found], device=fabric.device))
    assert isinstance(returns, Tensor)
    return Evaluation(returns.flatten().tolist(), found[0].video)


def record(folder: RunFolder, world: World, found: Evaluation, seconds: float, purpose: str = "evaluation") -> None:
    """A line in ``evaluations.jsonl``, and a film of an episode; on the first rank."""
    policy = world.agent.controller(explore=False).name
    frames_seen = world.frames
    if not world.fabric.is_global_zero:
        return
    returns = torch.tensor(found.returns)
    row: dict[str, Any] = {
        "frames": frames_seen,
        "updates": world.agent.updates,
        "seconds": round(seconds, 1),
        "policy": policy,
        "starts": purpose,
        "returns": [round(x, 3) for x in found.returns],
        "return_mean": round(float(returns.mean()), 3),
        "return_std": round(float(returns.std(unbiased=False)), 3),
    }
    folder.add_evaluation(row)
    if found.video is not None:
        path = folder.film(world.agent.updates, None if purpose == "evaluation" else policy)
        write_mp4(path, found.video, fps=25)


def film_rollouts(folder: RunFolder, world: World) -> None:
    """Open-loop rollouts beside the truth, of sequences of the replay, as PNG and mp4; on the first rank."""
    if not world.fabric.is_global_zero:
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
    """Inside, the agent is in evaluation mode."""
    before = agent.training
    agent.eval()
    try:
        yield
    finally:
        agent.train(before)
