"""Killed at any moment and resumed, a run ends as if nothing had happened."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.resume import differences, outcome, torture
from tests.training.conftest import CONFIGS, files, words
from tests.training.forked import Forked
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run
from worldmodel.training.run_folder import RunFolder

COLLECT = "--model.collect_with.init_args"
PLANNER = [
    *["--policy", f"{CONFIGS}/policy/icem.yaml", f"{COLLECT}.every", "2", f"{COLLECT}.planner.init_args.horizon", "4"],
    *["--model.evaluate_with", "worldmodel.control.controller.RandomController"],
]
PHYSICS = ["--data.task", "cartpole_balance", "--data.action_repeat", "50", "--schedule.prefill", "40"]
TASKS = {
    "toy": ["--schedule.rounds", "12"],
    "discrete": ["--schedule.rounds", "6", "--data.task", "worldmodel.experience.toy:DiscretePointReach"],
    "vectors": ["--schedule.rounds", "6", "--data.task", "tests.hidden_goal:HiddenGoal"],
    "planner": ["--schedule.rounds", "4", *PLANNER],
    "cartpole": ["--schedule.rounds", "6", *PHYSICS],
}


@pytest.mark.parametrize("task", TASKS)
def test_killed_and_resumed_to_the_last_digit(tmp_path: Path, task: str) -> None:
    Forked(words(tmp_path / "warm", *TASKS[task], "--schedule.rounds", "1")).wait()
    start = time.monotonic()
    assert Forked(words(tmp_path / "calm", *TASKS[task])).wait() == 0
    seconds = time.monotonic() - start

    def again() -> Forked:
        return Forked(words(tmp_path / "troubled", *TASKS[task]))

    assert torture(again, 6, 0.1 * seconds, 0.8 * seconds, seed=1) >= 2
    assert differences(outcome(tmp_path / "calm"), outcome(tmp_path / "troubled")) == []
    calm, troubled = (load_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("calm", "troubled"))
    for name, value in calm["state_dict"].items():
        assert torch.equal(value, troubled["state_dict"][name]), name
    assert files(tmp_path / "calm/replay") == files(tmp_path / "troubled/replay")


def test_a_finished_run_ends_at_once(finished: Path) -> None:
    before = files(finished)
    run(["fit", "--run", str(finished)])
    after = files(finished)
    assert after == before


def test_a_run_from_before_a_setting_was_there_goes_on(finished: Path) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    del config["data"]["store_features"], config["optimizer"]["pretrained_learning_rate"]
    (finished / "config.yaml").write_text(yaml.safe_dump(config))
    run(["fit", "--run", str(finished), "--schedule.rounds", "6"])
    assert load_checkpoint(finished / "checkpoints/last.ckpt")["progress"]["round"] == 6
    assert yaml.safe_load((finished / "config.yaml").read_text())["data"]["store_features"] is False


def test_more_rounds_continue(finished: Path) -> None:
    before = outcome(finished)
    run(["fit", "--run", str(finished), "--schedule.rounds", "6"])
    after = outcome(finished)
    assert after["metrics"][: len(before["metrics"])] == before["metrics"]
    assert [row["updates"] for row in after["evaluations"]] == [8, 16, 24]
    assert load_checkpoint(finished / "checkpoints/last.ckpt")["updates"] == 24


def test_evaluating_more_often_from_now_on_changes_nothing_else(tmp_path: Path) -> None:
    for name, more in (("calm", []), ("watched", ["--schedule.evaluate_every", "1"])):
        run(words(tmp_path / name, "--schedule.rounds", "1", "--schedule.evaluate_every", "9"))
        run(["fit", "--run", str(tmp_path / name), "--schedule.rounds", "3", *more])
    calm, watched = (load_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("calm", "watched"))
    assert [len(RunFolder(tmp_path / name).read_evaluations()) for name in ("calm", "watched")] == [2, 3]
    for name, value in calm["state_dict"].items():
        assert torch.equal(value, watched["state_dict"][name]), name


def test_validate_is_repeatable_and_has_episodes_that_chose_nothing(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = outcome(finished)
    for _ in range(2):
        run(["validate", "--run", str(finished), "--checkpoint", str(finished / "checkpoints/last.ckpt")])
    said = capsys.readouterr().out
    assert "validating actor with last.ckpt of update 16, seed 0: 2 episodes\n" in said
    assert f"over 2 episodes, added to {finished}/validations.jsonl\n" in said and "standard deviation; " in said
    one, again = RunFolder(finished).read_validations()
    assert one | {"date": ""} == again | {"date": ""} and outcome(finished) == before
    chosen = before["evaluations"][-1]
    assert (chosen["starts"], one["starts"]) == ("evaluation", "report") and one["returns"] != chosen["returns"]
    assert (one["checkpoint"], one["updates"], one["seed"], one["policy"]) == ("last.ckpt", 16, 0, "actor")
