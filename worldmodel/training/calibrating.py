"""The calibration of a run: how wrong its dreams are likely to be, from held-out episodes, kept in the run's folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from worldmodel.control.controller import ActorController, Controller, LatentPolicy
from worldmodel.errors import UserError
from worldmodel.experience.collector import Collector, RandomPolicy
from worldmodel.experience.replay import Replay
from worldmodel.insight.caution import Caution
from worldmodel.insight.clues import Judged, judged, weights_digest
from worldmodel.insight.trust import Clues, Origin, Trust, fit_trust
from worldmodel.insight.verify import Verified, verify_by_episode
from worldmodel.training.agent import Agent
from worldmodel.training.checkpoint import write_atomically
from worldmodel.training.console import bar
from worldmodel.training.data import Experience
from worldmodel.training.loading import load_run
from worldmodel.training.randomness import own_randomness
from worldmodel.types import SequenceBatch

CONTEXT, HORIZON = 5, 40  # records that are seen and dreamt
_DREAMS = 192  # at most


class JudgedDreams(NamedTuple):
    """Dreams of held-out episodes, and what is fitted on them."""

    found: Judged  # of n dreams
    episode: np.ndarray  # (n,)
    origin: Origin

    def fit(self) -> Trust:
        """What to expect of others like them.

        Raises:
            UserError: they are too few.
        """
        return fit_trust(self.found.clues, self.found.errors, self.episode, self.origin)

    def verify(self) -> Verified:
        """What that is worth, each fold of the episodes judged by the others."""
        return verify_by_episode(self.found.clues, self.found.errors, self.episode, self.origin)


def calibrated(folder: Path, episodes: int) -> str:
    """Fit a run's calibration on held-out episodes and keep it in its folder; a line to read of it."""
    try:
        agent, data = load_run(folder, environments=1, trust_code=True, to_draw=True)  # it has just been trained here
        try:
            with own_randomness(0), tempfile.TemporaryDirectory() as directory:
                dreams = judge(
                    agent, data.needed_task(), collect_held_out(data, acting(agent), Path(directory), episodes)
                )
        finally:
            data.close()
        trust = dreams.fit()
    except UserError as cause:
        return f"nothing is known of how wrong its dreams are: {cause}"
    keep(folder, trust)
    return f"calibrated on {episodes} held-out episodes: {described(trust, dreams.found.clues)}"


def described(trust: Trust, clues: Clues) -> str:
    """How long dreams are trusted, in words."""
    steps = float(np.median(trust.trusted_steps(clues)))
    return f"half of the dreams are trusted for {steps:g} of {trust.horizon} steps or more"


def judge(agent: Agent, task: str, replay: Replay) -> JudgedDreams:
    """Dream of held-out episodes.

    Raises:
        UserError: they are too short.
    """
    batch = overlapping(replay)
    episode = batch.episode[:, 0].numpy()
    origin = Origin(
        task=task,
        weights=weights_digest(agent.world_model),
        updates=agent.updates,
        episodes=len(np.unique(episode)),
        context=CONTEXT,
    )
    return JudgedDreams(judged(agent.world_model, batch, CONTEXT), episode, origin)


def keep(folder: Path, trust: Trust) -> Path:
    """Write a run's calibration, and say where."""
    path = folder / "calibration.json"
    write_atomically(path, lambda temporary: temporary.write_text(trust.to_json()))
    return path


def load_trust(folder: Path | str, agent: Agent, task: str) -> Trust:
    """The calibration that a run's folder holds, if it is of these weights.

    Raises:
        UserError: there is none, or it is of other weights or of another task.
    """
    path = Path(folder) / "calibration.json"
    if not path.exists():
        raise UserError(f"nothing is known of how wrong its dreams are: worldmodel report --run {folder} fits that")
    trust = Trust.from_json(path.read_text())
    trust.check(task, weights_digest(agent.world_model), agent.updates)
    return trust


def load_caution(folder: Path | str, checkpoint: str | Path | None = None, trust_code: bool = False) -> Caution:
    """What a run's calibration gives to planners and actors: see ``Caution``.

    Args:
        folder: the run's.
        checkpoint: whose weights it must be of; ``best.ckpt`` if None, or ``last.ckpt`` where there is no best.
        trust_code: build whatever the run's ``config.yaml`` names; see ``wm.load``.

    Raises:
        UserError: there is no run, or no calibration, or it is of other weights or of another task.
    """
    agent, data = load_run(folder, checkpoint, environments=1, trust_code=trust_code)
    data.close()
    return Caution(load_trust(folder, agent, data.needed_task()))


def acting(agent: Agent) -> Controller:
    """Who acts in half of the held-out episodes, as it explores."""
    return agent.controller(True, ActorController if agent.actor_critic is not None else agent.collect_with)


def collect_held_out(data: Experience, controller: Controller, directory: Path, episodes: int) -> Replay:
    """Held-out episodes: first those of who acts, then those at random."""
    environments = data.held_out("report")
    replay = Replay(
        directory,
        image_shape=environments.image_shape,
        action_size=environments.action.size,
        vector_size=environments.vector_size,
    )
    collector = Collector(environments, replay)
    for policy, until in (
        (LatentPolicy(controller, explore=True), episodes // 2),
        (RandomPolicy(controller.action), episodes),
    ):
        with bar("collecting episodes", until - collector.episodes) as shown:
            before = collector.episodes
            while collector.episodes < until:
                collector.collect(policy, 1)
                shown.at(collector.episodes - before)
    return replay


def overlapping(replay: Replay) -> SequenceBatch:
    """Sequences of ``CONTEXT + HORIZON`` records, a quarter of a horizon apart; fewer where episodes are short.

    Raises:
        UserError: the episodes are too short to dream anything.
    """
    found = list(replay.episodes())
    longest = int(np.median([len(records) for _, records in found]))
    if longest <= CONTEXT:
        raise UserError(f"episodes of {longest} records are too short for a calibration: it takes {CONTEXT + 1}")
    length = CONTEXT + min(HORIZON, (longest - CONTEXT + 1) // 2)  # the rest is for beginnings
    parts = cut(found, length, max(1, (length - CONTEXT) // 4))
    chosen = np.unique(np.linspace(0, len(parts) - 1, min(_DREAMS, len(parts))).round().astype(int))
    return stacked([parts[i] for i in chosen])


def cut(episodes: Iterable[tuple[int, np.ndarray]], length: int, stride: int) -> list[tuple[int, np.ndarray]]:
    """All sequences of ``length`` records that begin ``stride`` apart in their episode, with its number."""
    return [
        (number, records[first : first + length])
        for number, records in episodes
        for first in range(0, len(records) - length + 1, stride)
    ]


def stacked(parts: Sequence[tuple[int, np.ndarray]]) -> SequenceBatch:
    """Sequences (B, T) of what ``cut`` gives."""
    rows = np.stack([records for _, records in parts])  # (B, T)
    tensors: dict[str, Any] = {name: torch.from_numpy(rows[name].copy()) for name in rows.dtype.names or ()}
    episode = torch.tensor([number for number, _ in parts])
    return SequenceBatch(**tensors, episode=episode.unsqueeze(1).repeat(1, rows.shape[1]))
