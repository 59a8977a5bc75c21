from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worldmodel as wm
from tests.training.conftest import numbered, words
from worldmodel.commands import imagine
from worldmodel.errors import UserError
from worldmodel.insight.trust import Trust
from worldmodel.training.calibrating import load_trust, overlapping
from worldmodel.training.cli import run
from worldmodel.training.loading import load_run
from worldmodel.types import Trajectory

TASK = "worldmodel.experience.toy:PointReach"


@pytest.fixture(scope="module")
def _calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "calibrated"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["worldmodel"])
        run(words(folder, "--schedule.rounds", "1", "--schedule.calibration_episodes", "24"))
    return folder


def test_a_run_ends_with_a_calibration_that_imagine_uses(
    _calibrated: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = Trust.from_json((_calibrated / "calibration.json").read_text())
    assert trust.origin.task == TASK and trust.origin.episodes == 24 and trust.origin.updates == 4
    drawn: list[Trajectory[Any]] = []
    monkeypatch.setitem(imagine._WRITERS, ".png", lambda path, each: drawn.append(each))
    run(["imagine", "--run", str(_calibrated), "--out", str(tmp_path / "a.png"), "--horizon", "6"])
    assert "steps that are likely better than the last picture, of each dream: " in capsys.readouterr().out
    assert drawn[0].expected_error is not None and drawn[0].expected_error.shape == (2, 6, 3)
    monkeypatch.undo()
    monkeypatch.setattr("sys.argv", ["worldmodel"])
    for name in ("a.gif", "a.png"):
        run(["imagine", "--run", str(_calibrated), "--out", str(tmp_path / name), "--horizon", "6"])
        assert (tmp_path / name).stat().st_size > 1000


def test_a_report_fits_it_again_and_says_what_it_is_worth(_calibrated: Path, tmp_path: Path, capsys: Any) -> None:
    before = (_calibrated / "calibration.json").read_text()
    (_calibrated / "calibration.json").write_text("cut")
    out = tmp_path / "page.html"
    run(["report", "--run", str(_calibrated), "--episodes", "24", "--horizon", "6", "--out", str(out)])
    assert f"fitted the calibration again: {_calibrated / 'calibration.json'}" in capsys.readouterr().out
    assert (_calibrated / "calibration.json").read_text() == before  # of the same episodes
    page, rows = out.read_text(), json.loads(out.with_suffix(".json").read_text())
    assert "How far can its dreams be trusted?" in page and "pixels: covered by bands of 95%" in page
    coverage = [row["value"] for row in rows if row["metric"] == "coverage_0.9" and row["case"] == "pixels"]
    assert len(coverage) > 6 and 0.75 < np.mean(coverage) <= 1


def test_what_is_not_of_these_weights_is_refused(_calibrated: Path, tmp_path: Path) -> None:
    agent, data = load_run(_calibrated)
    data.close()
    assert load_trust(_calibrated, agent, TASK).origin.updates == 4
    with pytest.raises(UserError, match=r"is of the task .*PointReach, not of other: worldmodel report"):
        load_trust(_calibrated, agent, "other")
    with torch.no_grad():
        next(agent.world_model.parameters()).add_(0.1)
    with pytest.raises(UserError, match="is stale, of other weights"):
        load_trust(_calibrated, agent, TASK)
    with pytest.raises(UserError, match=f"nothing is known .* worldmodel report --run {tmp_path} fits that"):
        load_trust(tmp_path, agent, TASK)


def test_too_few_episodes_are_no_error(tmp_path: Path, capsys: Any) -> None:
    run(words(tmp_path / "run", "--schedule.rounds", "1", "--schedule.calibration_episodes", "2"))
    assert "how wrong its dreams are: a calibration takes 39 dreams" in capsys.readouterr().out
    assert not (tmp_path / "run" / "calibration.json").exists()


def test_sequences_overlap_and_keep_to_their_episode(tmp_path: Path) -> None:
    found = overlapping(numbered(tmp_path, (17, 2, 13)))
    assert found.reward[:, 0].tolist() == [*range(9), *range(200, 205)] and found.reward.shape == (14, 9)
    assert (found.reward // 100 == found.episode).all()


def test_dreams_and_planners_take_a_runs_calibration(_calibrated: Path, tmp_path: Path) -> None:
    assert wm.load_caution(_calibrated).reward_error(torch.ones(2, 3)).shape == (2, 3)
    env = wm.DreamVectorEnv.from_run(_calibrated, 2, horizon=None, trust=True)
    env.reset(seed=0)
    horizon = load_trust(_calibrated, *_agent(_calibrated)).horizon
    ends = [env.step(env.action_space.sample())[3].any() for _ in range(horizon + 1)]
    assert any(ends)
    other = tmp_path / "run"
    shutil.copytree(_calibrated, other)
    (other / "calibration.json").unlink()
    for ask in (wm.load_caution, partial(wm.DreamVectorEnv.from_run, num_envs=2, trust=True)):
        with pytest.raises(UserError, match=f"nothing is known .* worldmodel report --run {other} fits that"):
            ask(other)


def _agent(run: Path) -> tuple[Any, str]:
    agent, data = load_run(run)
    data.close()
    return agent, TASK
