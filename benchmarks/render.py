"""How much faster the fast picture is than dm_control's own: ``python -m benchmarks.render [task ...]``.

One core; the two qualities take turns on the same states, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np

from worldmodel.experience.environments import make_environment
from worldmodel.experience.rendering import Quality

TASKS = (
    "cartpole_swingup",
    "walker_walk",
    "reacher_easy",
    "finger_spin",
    "ball_in_cup_catch",
)
ROUNDS = 8
FRAMES: dict[Quality, int] = {"reference": 5, "fast": 40}


def measure(task: str, size: int) -> dict[str, float]:
    """Frames per second of each quality, drawing alone, and of the whole fast environment."""
    envs = {quality: make_environment(task, size=size, quality=quality) for quality in FRAMES}
    rng = np.random.default_rng(0)
    draws: dict[str, list[float]] = {quality: [] for quality in FRAMES}
    steps: list[float] = []
    for env in envs.values():
        env.reset(seed=0)
    for _ in range(ROUNDS):
        for quality, env in envs.items():
            for _ in range(FRAMES[quality]):
                begin = time.perf_counter()
                env.step(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))
                if quality == "fast":
                    steps.append(time.perf_counter() - begin)
                begin = time.perf_counter()
                env.unwrapped.render()
                draws[quality].append(time.perf_counter() - begin)
    for env in envs.values():
        env.close()
    fps = {f"{quality}_fps": 1 / float(np.mean(seconds)) for quality, seconds in draws.items()}
    return {**fps, "env_steps_per_second": 1 / float(np.mean(steps))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=TASKS, help="dm_control tasks")
    parser.add_argument("--size", type=int, default=64, help="image size in pixels")
    options = parser.parse_args()
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    results = {}
    for task in options.tasks:
        result = measure(task, options.size)
        result["ratio"] = result["fast_fps"] / result["reference_fps"]
        results[task] = {name: round(value, 1) for name, value in result.items()}
        print(
            f"{task:20}",
            *(f"{name} {value:.1f}" for name, value in result.items()),
            sep="  ",
        )
    ratios = [result["ratio"] for result in results.values()]
    summary = {
        "fast_over_reference": round(float(np.exp(np.mean(np.log(ratios)))), 2),
        "fast_over_reference_min": min(ratios),
        "size": options.size,
        "core": core,
        "tasks": results,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
