"""The calibration of a run: how wrong its dreams are likely to be, from held-out episodes, kept in the run's folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.control.controller import ActorController, Controller, LatentPolicy
from worldmodel.errors import UserError
from worldmodel.experience.collector import Collector, RandomPolicy
from worldmodel.experience.replay import Replay
from worldmodel.insight.clues import judged, weights_digest
from worldmodel.insight.trust import Origin, Trust, fit_trust
from worldmodel.training.agent import Agent
from worldmodel.training.checkpoint import write_atomically
from worldmodel.training.data import Experience
from worldmodel.training.loading import load_run
from worldmodel.training.randomness import own_randomness
from worldmodel.types import SequenceBatch

CONTEXT, HORIZON = 5, 40  # records that are seen and dreamt
_DREAMS = 192  # at most


def calibrate_run(folder: Path, episodes: int, seed: int = 0) -> Trust:
    """Collect held-out episodes with the weights that are looked at, fit on them, and keep that in the folder.

    Raises:
        UserError: the episodes are too few or too short.
    """
    agent, data = load_run(folder, environments=1)  # with more, short episodes would be favoured
    try:
        with own_randomness(seed), tempfile.TemporaryDirectory() as directory:
            replay = collect_held_out(data, acting(agent), Path(directory), episodes)
            dreams = overlapping(replay)
    finally:
        data.close()
    with own_randomness(seed):
        found = judged(agent.world_model, dreams, CONTEXT)
    trust = fit_trust(found.clues, found.errors, dreams.episode[:, 0].numpy(), origin_of(agent, data, dreams))
    keep(folder, trust)
    return trust


def keep(folder: Path, trust: Trust) -> Path:
    """Write a run's calibration, and say where."""
    path = folder / "calibration.json"
    write_atomically(path, lambda temporary: temporary.write_text(trust.to_json()))
    return path


def kept(folder: Path, agent: Agent, task: str) -> Trust:
    """The calibration that a run's folder holds, if it is of these weights.

    Raises:
        UserError: there is none, or it is of other weights or of another task.
    """
    path = folder / "calibration.json"
    if not path.exists():
        raise UserError(f"nothing is known of how wrong its dreams are: worldmodel report --run {folder} fits that")
    trust = Trust.from_json(path.read_text())
    trust.check(task, weights_digest(agent.world_model), agent.updates)
    return trust


def acting(agent: Agent) -> Controller:
    """Who acts in half of the held-out episodes, as it explores."""
    return agent.controller(True, ActorController if agent.actor_critic is not None else agent.collect_with)


def collect_held_out(data: Experience, controller: Controller, directory: Path, episodes: int) -> Replay:
    """Held-out episodes: first those of who acts, then those at random."""
    environments = data.held_out("report")
    replay = Replay(directory, image_shape=environments.image_shape, action_size=environments.action.size)
    collector = Collector(environments, replay)
    for policy, until in (
        (LatentPolicy(controller, explore=True), episodes // 2),
        (RandomPolicy(controller.action), episodes),
    ):
        while collector.episodes < until:
            collector.collect(policy, 1)
    return replay


def overlapping(replay: Replay) -> SequenceBatch:
    """Sequences of ``CONTEXT + HORIZON`` records or as long as most episodes are, a quarter of a horizon apart.

    Raises:
        UserError: the episodes are too short to dream anything.
    """
    found = [(number, records) for number, records in replay.episodes()]
    length = min(CONTEXT + HORIZON, int(np.median([len(records) for _, records in found])))
    if length <= CONTEXT:
        raise UserError(f"episodes of {length} records are too short for a calibration: it takes {CONTEXT + 1}")
    parts = [
        (number, records[first : first + length])
        for number, records in found
        for first in range(0, len(records) - length + 1, max(1, (length - CONTEXT) // 4))
    ]
    chosen = np.unique(np.linspace(0, len(parts) - 1, min(_DREAMS, len(parts))).round().astype(int))
    rows = np.stack([parts[i][1] for i in chosen])  # (n, T)
    tensors: dict[str, Any] = {name: torch.from_numpy(rows[name].copy()) for name in rows.dtype.names or ()}
    episode = torch.tensor([parts[i][0] for i in chosen])
    return SequenceBatch(**tensors, episode=episode.unsqueeze(1).repeat(1, length))


def origin_of(agent: Agent, data: Experience, dreams: SequenceBatch) -> Origin:
    """What a calibration of these dreams is of."""
    episodes = len(dreams.episode[:, 0].unique())
    return Origin(data.task, weights_digest(agent.world_model), agent.updates, episodes, CONTEXT)
