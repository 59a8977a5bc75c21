"""Updates a second with stored features, against running the backbone in each. ``python -m benchmarks.features``.

The two take turns in one process whose threads are pinned, on the same batches with the same random numbers, so that
what else the machine does slows both. Their losses must be the same to the last digit. The last line is a JSON object;
``ratio`` is the median over the rounds of the seconds without stored features divided by those with them.
``taskset -c 0`` leaves one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.update import Update, make_agent  # pins the threads: nothing loads torch before

# isort: split
import numpy as np
import torch

from worldmodel.experience.replay import Features, Replay
from worldmodel.training.agent import Agent
from worldmodel.training.configs import merged
from worldmodel.training.data import frozen_features
from worldmodel.training.fabric import make_fabric

SIDE, EPISODES, RECORDS = 64, 8, 64


def build(encoder: str, weights: str | None, batch: int | None) -> tuple[Agent, int, int]:
    """The agent of base.yaml with this encoder, its batch and its length."""
    config = merged(encoder)
    if weights:
        config["model"]["world_model"]["init_args"]["encoder"]["init_args"]["file"] = weights
    return make_agent(config), batch or config["data"]["batch"], config["data"]["length"]


def store(folder: str, agent: Agent, features: Features | None) -> Replay:
    """A replay of noise, always the same, with what the agent's encoder makes of it or without."""
    replay = Replay(folder, image_shape=(3, SIDE, SIDE), action_size=1, features=features)
    rng = np.random.default_rng(0)
    for _ in range(EPISODES):
        records = np.zeros(RECORDS, replay.dtype)
        records["image"] = rng.integers(0, 256, records["image"].shape, np.uint8)
        records["action"], records["reward"] = rng.uniform(-1, 1, (RECORDS, 1)), rng.uniform(0, 1, RECORDS)
        records["is_first"][0] = True
        if features:
            image = torch.from_numpy(records["image"].copy()).to(agent.device)
            records["features"] = agent.world_model.encoder.features(image).cpu().numpy()
        replay.add_episode(records)
    return replay


def race(updates: dict[str, Update], count: int, warmup: int = 2) -> tuple[dict[str, list[float]], bool]:
    """Seconds of each update, and whether the losses were the same to the last digit."""
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    identical = True
    for number in range(warmup + count):
        losses = []
        for name, update in updates.items():
            torch.manual_seed(number)
            start = time.perf_counter()
            losses.append(float(update()))  # which waits for the device
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
        identical = identical and losses[0] == losses[1]
    return seconds, identical


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="encoder/lite0", help="a config of one")
    parser.add_argument("--file", help="its weights; as the config says if not given")
    parser.add_argument("--batch", type=int, help="sequences in a batch; as in base.yaml if not given")
    parser.add_argument("--updates", type=int, default=10, help="of each kind, after two to warm up")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    fabric = make_fabric(accelerator=given.device)
    agent, batch, length = build(given.encoder, given.file, given.batch)
    agent.to(fabric.device)
    with TemporaryDirectory() as stored, TemporaryDirectory() as plain:
        features = frozen_features(agent)
        updates = {
            "stored": Update(agent, store(stored, agent, features), batch, length),
            "without": Update(copy.deepcopy(agent), store(plain, agent, None), batch, length),
        }
        for update in updates.values():
            update.agent.setup(fabric)
        seconds, identical = race(updates, given.updates)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    result: dict[str, Any] = {
        "encoder": features.identity,
        "features": list(features.shape),
        "batch": [batch, length],
        "updates_per_second_stored": round(1 / median["stored"], 3),
        "updates_per_second_without": round(1 / median["without"], 3),
        "ratio": round(statistics.median(b / a for a, b in zip(*seconds.values(), strict=True)), 2),
        "identical": identical,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if agent.device.type == "cuda" else "cpu",
    }
    print(json.dumps(result))
    if not identical:
        raise SystemExit("the losses differ")


if __name__ == "__main__":
    main()
