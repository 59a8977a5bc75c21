"""What a finished run has come to: ``python -m experiments.encoders.measure RUN`` prints it as a JSON object.

Legend: N sequences, T records, h x w pixels.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldmodel.experience.collector import Collector, RandomPolicy
from worldmodel.experience.replay import Replay
from worldmodel.experience.vector import InProcess
from worldmodel.insight.calibration import open_loop_errors
from worldmodel.model.world_model import WorldModel
from worldmodel.training.data import Experience
from worldmodel.training.loading import load_run
from worldmodel.training.run_folder import RunFolder
from worldmodel.types import SequenceBatch

SEED = 7_000_003  # no run trains or evaluates on it
SEQUENCES, CONTEXT, HORIZON, EPISODES = 32, 5, 15, 8


def held_out(data: Experience) -> SequenceBatch:
    """Sequences (N, T) of the run's task under random actions, the same for every run."""
    torch.manual_seed(0)
    environments = InProcess(data.task, 4, SEED, **data.settings)
    with tempfile.TemporaryDirectory() as folder:
        size = environments.action.size
        replay = Replay(folder, image_shape=environments.image_shape, action_size=size, seed=SEED)
        collector = Collector(environments, replay)
        while collector.episodes < EPISODES:
            collector.collect(RandomPolicy(environments.action), 1)
        batch = replay.sample(SEQUENCES, CONTEXT + HORIZON)
    environments.close()
    return batch


@torch.no_grad()
def errors(world_model: WorldModel, batch: SequenceBatch) -> dict[str, float]:
    """On real sequences (N, T), with the most likely latents.

    ``reconstruction`` is the posterior's mean square error in pixels of [0, 1] at the decoder's resolution,
    ``unexplained`` its share of the pixels' variance in ``batch``, ``reward_loss`` in nats, ``open_loop`` the mean
    absolute error of pixels in [0, 1] where a dream of HORIZON steps ends.
    """
    decoder, image = world_model.decoder, batch.image.flatten(0, 1)
    feature = world_model.observe(batch, mode=True).state.feature.flatten(0, 1)  # (N T, F)
    wrong = (decoder(feature) - decoder.pixels(image)) * decoder.pixels.std  # (N T, 3, h, w)
    square = float(wrong.square().mean())
    dreams = open_loop_errors(world_model, batch, CONTEXT, HORIZON)
    last = dreams.pixel_error[:, -1][dreams.valid[:, -1]]
    return {
        "reconstruction": square,
        "unexplained": square / float(decoder.pixels.resize(image).var(0, unbiased=False).mean()),
        "reward_loss": float(world_model.reward.loss(feature, batch.reward.flatten()).mean()),
        "open_loop": float(last.mean()),
    }


def tables(run: RunFolder) -> dict[str, Any]:
    """What the run's own tables say. ``curve`` is a list of frames, minutes of training, mean return."""
    rows = run.read_evaluations()
    with (run.path / "metrics.csv").open(newline="") as file:
        pace = [float(row["updates_per_second"]) for row in csv.DictReader(file) if row["updates_per_second"]]
    last = rows[-1]
    return {
        "frames": last["frames"],
        "updates": last["updates"],
        "minutes": round(last["seconds"] / 60, 3),
        "updates_per_second": float(np.median(pace)),
        "return_end": last["return_mean"],
        "return_best": max(row["return_mean"] for row in rows),
        "curve": [[row["frames"], round(row["seconds"] / 60, 3), row["return_mean"]] for row in rows],
    }


def measure(run: Path) -> dict[str, Any]:
    """Everything about a run, of its last checkpoint."""
    folder = RunFolder(run)
    agent, data = load_run(run, folder.last, environments=1)
    batch = held_out(data)
    data.close()
    return tables(folder) | errors(agent.world_model, batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    print(json.dumps(measure(parser.parse_args().run)))


if __name__ == "__main__":
    main()
