"""Two processes on the CPU, a replay shard each, one set of parameters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.resume import differences, outcome
from tests.training.conftest import CONFIGS, TINY
from worldmodel.training.run import load_checkpoint

ROOT = CONFIGS.parent
PLAY = """
import sys
import torch
from lightning.pytorch.callbacks import Callback

class SaveRank(Callback):
    '''Keeps what every rank came to.'''

    def on_train_end(self, trainer, module):
        torch.save(module.state_dict(), f"rank_{trainer.global_rank}_{trainer.global_step}.pt")
"""


def fit(folder: Path, epochs: int) -> None:
    """Train ``folder``/run with two processes in a fresh command."""
    (folder / "spy.py").write_text(PLAY)
    configs = [word for path in (CONFIGS / "base.yaml", TINY) for word in ("--config", str(path))]
    ranks = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.callbacks+", "spy.SaveRank"]
    command = [sys.executable, "-m", "worldmodel", "fit", *configs, *ranks, "--run", "run"]
    path = os.pathsep.join([str(ROOT), str(folder)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    given = [*command, "--trainer.max_epochs", str(epochs)]
    done = subprocess.run(given, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_ranks_train_alike_and_resume(tmp_path: Path) -> None:
    for name, legs in {"calm": [4], "resumed": [2, 4]}.items():
        (tmp_path / name).mkdir()
        for epochs in legs:
            fit(tmp_path / name, epochs)
    calm = tmp_path / "calm"
    one, two = (torch.load(calm / f"rank_{rank}_16.pt", weights_only=True) for rank in (0, 1))
    saved = load_checkpoint(calm / "run/checkpoints/last.ckpt")["state_dict"]
    for name, value in one.items():
        assert torch.equal(value, two[name]) and torch.equal(value, saved[name]), name
    shards = [sorted((calm / f"run/replay/rank_{rank}").glob("*.npy")) for rank in (0, 1)]
    assert all(shards) and shards[0][0].read_bytes() != shards[1][0].read_bytes()
    rows = [json.loads(line) for line in (calm / "run/evaluations.jsonl").read_text().splitlines()]
    assert [(row["updates"], len(row["returns"])) for row in rows] == [(8, 2), (16, 2)]
    assert differences(outcome(calm / "run"), outcome(tmp_path / "resumed/run")) == []
