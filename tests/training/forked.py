"""The command line in processes of its own that start at once: forked from one that has loaded torch."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import torch

from worldmodel.training import fit
from worldmodel.training.cli import run
from worldmodel.training.run import Run
from worldmodel.training.schedule import Schedule
from worldmodel.training.train import train as loop
from worldmodel.training.world import World

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["worldmodel.training.fit"])


def train(given: list[str], environment: dict[str, str], weights: Path | None) -> None:
    sys.argv = ["worldmodel"]
    os.environ |= environment
    torch.set_num_threads(1)
    if weights:
        keep(weights)
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        run(given)


def keep(weights: Path) -> None:
    """Save the parameters and buffers that this process came to, whatever its rank."""

    def kept(world: World, schedule: Schedule, run: Run) -> None:
        loop(world, schedule, run)
        torch.save(world.agent.state_dict(), weights)

    fit.train = kept


class Forked:
    """Like ``subprocess.Popen``, of ``worldmodel`` with these words."""

    def __init__(
        self, given: list[str], environment: dict[str, str] | None = None, weights: Path | None = None
    ) -> None:
        self.process = CONTEXT.Process(target=train, args=(given, environment or {}, weights))
        self.process.start()
        self.kill = self.process.kill

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("worldmodel", timeout or 0)
        return self.process.exitcode
