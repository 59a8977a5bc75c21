"""Seconds per update, and where they go. ``python -m benchmarks.update [--size standard|laptop] [--device cuda ...]``.

``standard`` is width 256, 16 x 16 categorical latents, K = 5, batch 16 x 32 of 64 x 64 frames, all decoded, and 512
imagined starts x 15 steps. Any other size is the name of a file in ``configs/size``. The last line is a JSON object.
"""

from __future__ import annotations

from worldmodel.__main__ import tune_for_cpu

tune_for_cpu()  # before torch is loaded

import argparse
import json
import statistics
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from worldmodel.experience.replay import Replay, record_dtype
from worldmodel.training.agent import Agent
from worldmodel.training.configs import merge, merged
from worldmodel.training.fabric import make_fabric
from worldmodel.training.parser import Parser
from worldmodel.training.settings import Settings, add_parts
from worldmodel.types import ActionSpec, LatentState, SequenceBatch

STANDARD = {
    "data": {"batch": 16, "length": 32},
    "model": {
        "world_model": {
            "init_args": {
                "encoder": {"init_args": {"size": 64}},
                "decoder": {"init_args": {"size": 64}},
                "latents": {
                    "class_path": "worldmodel.model.distributions.CategoricalLatents",
                    "init_args": {"groups": 16, "classes": 16},
                },
                "transition": {"init_args": {"members": 5}},
                "deter": 256,
                "width": 256,
                "decode_fraction": 1.0,
            }
        },
        "actor_critic": {"init_args": {"width": 256, "starts": 512, "horizon": 15}},
    },
}


def build(name: str, compiled: bool) -> tuple[Agent, int, int]:
    """The agent of a configuration such as ``size/12m``, or of ``standard``; its batch and its length."""
    config = merge(merged(), STANDARD) if name == "standard" else merged(name)
    return make_agent(config, compiled), config["data"]["batch"], config["data"]["length"]


def make_agent(config: dict[str, Any], compiled: bool = False) -> Agent:
    """The agent that the parts ``optimizer`` and ``model`` of a configuration describe, for one continuous action."""
    parser = Parser()
    add_parts(parser)
    parts = {"optimizer": config["optimizer"], "model": config["model"] | {"compile": compiled}}
    return Settings(parser, parser.parse_object(parts)).agent(ActionSpec(1, discrete=False))


def store(folder: str) -> Replay:
    """A replay of noise: 20 episodes of 128 records."""
    replay = Replay(folder, image_shape=(3, 64, 64), action_size=1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        records = np.zeros(128, record_dtype((3, 64, 64), 1))
        records["image"] = rng.integers(0, 256, records["image"].shape, np.uint8)
        records["action"], records["reward"] = rng.uniform(-1, 1, (128, 1)), rng.uniform(0, 1, 128)
        records["is_first"][0] = True
        replay.add_episode(records)
    return replay


class Stopwatch:
    """Median seconds of a call, after warm-up."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def __call__(self, call: Callable[[], Any], warmup: int = 3) -> float:
        seconds = []
        for i in range(warmup + self.repeats):
            start = time.perf_counter()
            call()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            if i >= warmup:
                seconds.append(time.perf_counter() - start)
        return statistics.median(seconds)


class Update:
    """Updates of an agent that is set up, from a replay."""

    def __init__(self, agent: Agent, replay: Replay, batch: int, length: int) -> None:
        self.agent, self.replay, self.batch, self.length = agent, replay, batch, length

    def sample(self) -> SequenceBatch:
        return self.replay.sample(self.batch, self.length).map(lambda x: x.to(self.agent.device))

    def __call__(self) -> torch.Tensor:
        """The joint loss (), before the update."""
        return self.agent.update(self.sample())["loss/total"]


def phases(update: Update, watch: Stopwatch) -> dict[str, float]:
    """Seconds of each part; forward passes with their graph, ``backward`` of all of them together."""
    agent, batch = update.agent, update.sample()
    model, control = agent.world_model, agent.actor_critic
    embed = model.embed(batch.image).detach()
    posterior = model.rssm.observe(embed, batch.action, batch.is_first)
    state = LatentState(*(x.detach() for x in posterior.state))
    feature = state.feature
    seconds = {
        "sample": watch(update.sample),
        "encode": watch(lambda: model.embed(batch.image)),
        "memory": watch(lambda: model.rssm.observe(embed, batch.action, batch.is_first)),
        "decode": watch(lambda: model._reconstruction(feature, batch.image)),
        "imagine": watch(lambda: control.loss(model, state, batch)),
    }

    def both() -> None:
        agent.losses(batch)[0].backward()

    seconds["backward"] = watch(both) - watch(lambda: agent.losses(batch))
    agent.zero_grad()
    seconds["step"] = watch(lambda: agent.update(batch)) - watch(both)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="standard", help="standard, or a file in configs/size")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--matmul-precision", default="medium", help="highest, high or medium")
    given = parser.parse_args()
    fabric = make_fabric(
        accelerator=given.device,
        precision="bf16-mixed" if given.bf16 else "32-true",
        matmul_precision=given.matmul_precision,
    )
    agent, batch, length = build(given.size if given.size == "standard" else f"size/{given.size}", given.compile)
    agent.setup(fabric)
    device = fabric.device
    with TemporaryDirectory() as folder:
        update, watch = Update(agent, store(folder), batch, length), Stopwatch(device, given.repeats)
        seconds = watch(update)
        parts = {} if given.compile else phases(update, watch)
    for name, value in parts.items():
        print(f"{name:10s} {1000 * value:8.1f} ms")
    result = {
        "size": given.size,
        "seconds_per_update": round(seconds, 4),
        "updates_per_second": round(1 / seconds, 2),
        "parameters": sum(p.numel() for p in agent.parameters()),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "compiled": given.compile,
        "bf16": given.bf16,
        "matmul_precision": given.matmul_precision,
        "phases": {name: round(value, 4) for name, value in parts.items()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
