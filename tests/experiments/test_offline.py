"""Data of three kinds out of a run, and the jobs that learn from it; no training."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import gap, offline
from tests import tiny
from tests.training.conftest import TINY, words
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.propagation import TS1
from worldmodel.errors import UserError
from worldmodel.experience.imported import read_imported
from worldmodel.training import early
from worldmodel.training.cli import run
from worldmodel.types import ActionSpec


def test_a_diluted_actor_takes_another_share_of_random_actions_in_every_episode() -> None:
    torch.manual_seed(0)
    model, action = tiny.world_model(), ActionSpec(tiny.ACTION, discrete=False)
    control = ActorCritic(action, model.feature_size, ThroughModel(), TS1(), width=16, layers=1, horizon=2)
    actor, state = offline.Diluted(model, control, action), model.rssm.initial(400)
    share = actor.initial(400)
    own = torch.zeros(400)
    for _ in range(50):
        taken, after = actor.act(state, share)
        assert (share == 0).all() or torch.equal(after, share)
        share = after
        own += (taken == control.actor.mode(state.feature)).all(-1)
    assert share.min() < 0.05 and share.max() > 0.95
    assert torch.corrcoef(torch.stack([own, 50 * (1 - share[:, 0])]))[0, 1] > 0.95


def test_the_data_and_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["worldmodel"])
    run(words(tmp_path / "run", "--schedule.rounds", "2"))
    out = tmp_path / "out"
    out.mkdir()
    offline.collect(tmp_path / "run", out, steps=60)
    assert sorted(path.name for path in out.iterdir()) == ["expert", "mixed", "random"]
    planned = gap.measured(tmp_path / "run", episodes=2, horizon=2, seed=0, weight=-1.0)
    assert planned.startswith("| run, planner, weight -1 | ")
    with pytest.raises(UserError, match="worldmodel report"):
        gap.measured(tmp_path / "run", episodes=2, horizon=2, seed=0, weight=-20.0, unusual=True)
    cells = [cell.strip() for cell in gap.measured(tmp_path / "run", episodes=3, horizon=5, seed=0).split("|")[1:-1]]
    assert cells[0] == "run" and re.fullmatch(r"-?[\d.]+ \(-?[\d.]+ to -?[\d.]+\)", cells[4])
    assert float(cells[4].split()[0]) == pytest.approx(float(cells[2]) - float(cells[3]), abs=0.11)
    for kind in offline.KINDS:
        held = [dict(np.load(path)) for path in sorted((out / kind).iterdir())]
        assert 32 <= sum(len(x["reward"]) - 1 for x in held) <= 128
        assert all(x["is_first"][0] and x["is_last"][-1] and not x["action"][0].any() for x in held)
    todo = offline.jobs([0, 1])
    assert len(todo) == 30 and len(set(todo)) == 30
    run(["import", "v-d4rl", str(out / "random"), "--run", str(todo[0].folder(out)), "--size", "16"])
    assert read_imported(todo[0].folder(out)) is not None
    made = offline.runner_job(todo[1], out, [str(TINY)], ["--data.task=worldmodel.experience.toy:PointReach"])
    given = early.expand(made.command[5:])
    early.check("fit", given)
    assert made.command[5] == "fit" and "policy/cautious" in given and "--offline" not in given
    alone = offline.runner_job(offline.Job("random", offline.MODEL, 0), out, [str(TINY)], ["--data.task=null"])
    early.check("fit", early.expand(alone.command[5:]))
    assert alone.done == out / "random_model_0.json" and "policy/random" in early.expand(alone.command[5:])
    for job, earned in zip(todo, range(30), strict=True):
        job.file(out, "json").write_text(json.dumps({"return_mean": earned}))
    lines = offline.page(out, [0, 1]).splitlines()
    assert (
        lines[5] == ""
        and lines[2].startswith("| random | ")
        and lines[2].endswith("| 8 (0, 15) | 8 (1, 16) | 10 (2, 17) | 10 (3, 18) | 12 (4, 19) |")
    )
    shutil.rmtree(out / "random")
    assert offline.page(out, [0, 1]).splitlines()[2].startswith("| mixed | ")  # only what was asked for is there
