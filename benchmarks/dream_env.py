"""Dreams against the environment that they stand for: ``python -m benchmarks.dream_env RUN [--dreams 64]``.

Steps a second of a ``DreamVectorEnv`` of a run, latent and in pixels, and of the run's real environment with its frames
drawn, on one core and one thread. They take turns, so that a busy machine slows all alike, and time on the processor is
what counts. An action of the real environment lasts as many frames as in the run. ``real_filtered`` has the world
model's filter on top, which is what a learner in the latent space pays for a real step. The last line is a JSON object;
ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import worldmodel as wm
from worldmodel.control.controller import random_action

STEPS = 20  # of each in a round


def dreaming(run: Path, num: int, observation: str, uncertainty: bool) -> Callable[[], int]:
    """Take some steps of ``num`` dreams; returns how many in all."""
    env = wm.DreamVectorEnv.from_run(run, num, observation, horizon=50, uncertainty=uncertainty)
    env.reset(seed=0)

    def steps() -> int:
        for _ in range(STEPS):
            env.step(env.action_space.sample())
        return STEPS * num

    return steps


def reality(run: Path, filtered: bool) -> Callable[[], int]:
    """The same of one real environment, drawn; with the filter on top if asked for."""
    agent, data = wm.load(run, environments=1)
    state = agent.world_model.rssm.initial(1)

    @torch.no_grad()
    def steps() -> int:
        nonlocal state
        for _ in range(STEPS):
            action = random_action(agent.action, 1)
            step = data.environments.step(action.numpy())
            if filtered:
                seen = wm.Observation(torch.from_numpy(step.image), torch.from_numpy(step.is_first))
                state = agent.world_model.filter(seen, action, state)
        return STEPS

    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--dreams", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    kinds = {
        "real": reality(options.run, filtered=False),
        "real_filtered": reality(options.run, filtered=True),
        "latent": dreaming(options.run, options.dreams, "latent", uncertainty=True),
        "latent_without_uncertainty": dreaming(options.run, options.dreams, "latent", uncertainty=False),
        "pixels": dreaming(options.run, options.dreams, "pixels", uncertainty=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    for i in range(options.rounds + 2):
        for name, steps in kinds.items():
            begun = time.process_time()
            taken = steps()
            if i >= 2:
                rates[name].append(taken / (time.process_time() - begun))
    ratios = {
        f"{name}_over_real": statistics.median(x / one for x, one in zip(rates[name], rates["real"], strict=True))
        for name in kinds
        if name not in ("real", "real_filtered")
    }
    result = {
        **{name: round(value, 1) for name, value in ratios.items()},
        "steps_per_second": {name: round(statistics.median(taken)) for name, taken in rates.items()},
        "dreams": options.dreams,
        "core": core,
        "rounds": options.rounds,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
