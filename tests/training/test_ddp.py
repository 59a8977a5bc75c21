"""Two processes on the CPU, a replay shard each, one set of parameters."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from benchmarks.resume import differences, outcome
from tests.training.conftest import words
from tests.training.forked import Forked
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.launch import LAUNCHER, launch


def fit(folder: Path, rounds: int) -> None:
    """Train with two processes that stand by themselves, as a cluster's launcher starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    more = ["--fabric.devices", "2", "--fabric.strategy", "ddp", "--schedule.rounds", str(rounds)]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
    given = words(folder, *more)
    ranks = [Forked(given, place | {"LOCAL_RANK": str(r)}, folder.with_name(f"{folder.name}_{r}.pt")) for r in range(2)]
    assert [rank.wait() for rank in ranks] == [0, 0]


def first_actions(shard: Path) -> np.ndarray:
    """Actions of the first records that a rank has stored."""
    return np.load(min(shard.glob("*.npz")))["action"][:10]


def test_two_ranks_train_alike_and_resume(tmp_path: Path) -> None:
    calm, resumed = tmp_path / "calm", tmp_path / "resumed"
    fit(calm, 4)
    fit(resumed, 2)
    fit(resumed, 4)
    one, two = (torch.load(tmp_path / f"calm_{rank}.pt", weights_only=True) for rank in (0, 1))
    saved = load_checkpoint(calm / "checkpoints/last.ckpt")["state_dict"]
    for name, value in one.items():  # buffers among them: pixel statistics, usual uncertainty, scale of returns
        assert torch.equal(value, two[name]) and torch.equal(value, saved[name]), name
    assert saved["world_model.typical_uncertainty"] > 0 and saved["actor_critic.scale.range"] > 0
    actions = [first_actions(calm / f"replay/rank_{rank}") for rank in (0, 1)]
    assert len(actions[0]) and not np.array_equal(*actions)  # random ones, of the prefill
    rows = [json.loads(line) for line in (calm / "evaluations.jsonl").read_text().splitlines()]
    assert [(row["updates"], len(row["returns"])) for row in rows] == [(8, 2), (16, 2)]
    again = load_checkpoint(resumed / "checkpoints/last.ckpt")["state_dict"]
    assert all(torch.equal(value, again[name]) for name, value in saved.items())
    assert differences(outcome(calm), outcome(resumed)) == []


def members(group: int) -> list[int]:
    """The processes of a group that are not yet ended."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, pgid, state in rows if int(pgid) == group and not state.startswith("Z")]


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 90
    while not what():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_run_leaves_no_watch_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later run of the same process has another launcher: its processes would end at once."""
    monkeypatch.delenv(LAUNCHER, raising=False)
    seen: list[str | None] = []
    launch(Fabric(accelerator="cpu"), lambda fabric, given: seen.append(os.environ.get(LAUNCHER)), None)
    assert seen == [str(os.getpid())] and LAUNCHER not in os.environ


@pytest.mark.parametrize(("rank", "begun"), [(0, False), (0, True), (1, True)])
def test_no_process_outlives_another(rank: int, begun: bool, tmp_path: Path) -> None:
    """Also where the second still starts, and would wait for a first one that never comes."""
    given = words(tmp_path / "run", "--fabric.devices", "2", "--fabric.strategy", "ddp", "--schedule.rounds", "1000")
    printed = tmp_path / "printed"
    with printed.open("w") as file:
        command = [sys.executable, "-m", "worldmodel", *given]
        main = subprocess.Popen(command, start_new_session=True, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: len(members(main.pid)) == 2 and (not begun or "loss" in printed.read_text()))
        os.kill(sorted(members(main.pid))[rank], signal.SIGKILL)
        wait_for(lambda: main.poll() is not None and not members(main.pid))
    finally:
        for left in members(main.pid):
            os.kill(left, signal.SIGKILL)
    assert "Traceback" not in printed.read_text()
    if begun and rank == 0:  # the first one may end before it has said so
        assert "another process of this run is gone" in printed.read_text()
