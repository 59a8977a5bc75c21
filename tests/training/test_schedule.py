"""Learning rates over a run, and how a run ends."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.training.conftest import files, words
from worldmodel.training import schedule
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run
from worldmodel.training.run_folder import RunFolder


def rate(folder: Path) -> float:
    """That of the world model in the last update."""
    return load_checkpoint(folder / "checkpoints" / "last.ckpt")["optimizer"]["adam"]["param_groups"][0]["lr"]


@pytest.mark.parametrize("decay, share", [("1.0", 1.0), ("0.2", 1 - 0.8 * 15 / 16)])
def test_rates_fall_linearly_towards_the_last_update(tmp_path: Path, decay: str, share: float) -> None:
    run(words(tmp_path, "--optimizer.decay", decay, "--optimizer.warmup", "0", "--optimizer.learning_rate", "0.01"))
    assert rate(tmp_path) == pytest.approx(0.01 * share)  # the last of sixteen


def test_rates_rise_over_the_warm_up(tmp_path: Path) -> None:
    run(words(tmp_path, "--optimizer.decay", "1.0", "--optimizer.warmup", "32", "--optimizer.learning_rate", "0.01"))
    assert rate(tmp_path) == pytest.approx(0.01 * 16 / 32)  # sixteen updates of thirty-two


def test_rates_do_not_jump_when_a_run_is_made_longer(tmp_path: Path) -> None:
    given = ["--optimizer.decay", "0.2", "--optimizer.warmup", "0", "--optimizer.learning_rate", "0.01"]
    run(words(tmp_path, *given, "--schedule.rounds", "2"))
    assert rate(tmp_path) == pytest.approx(0.01 * (1 - 0.8 * 7 / 8))
    run(["fit", "--run", str(tmp_path), "--schedule.rounds", "4"])
    assert rate(tmp_path) == pytest.approx(0.002)  # where it had come to


def test_a_run_ends_with_its_training_time_evaluated_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(schedule.Clock, "seconds", lambda self: float(next(ticks)))  # each look takes a second
    given = ["--schedule.rounds", "null", "--schedule.max_minutes", "0.12", "--schedule.evaluate_minutes", "0.05"]
    given += ["--schedule.final_episodes", "3", "--schedule.checkpoint_every", "1000"]
    run(words(tmp_path, *given))
    folder = RunFolder(tmp_path)
    rows = folder.read_evaluations()
    with (tmp_path / "metrics.csv").open() as file:
        rounds = len(list(csv.DictReader(file)))
    last = load_checkpoint(folder.last)
    assert last["progress"]["seconds"] >= 60 * 0.12 and rounds == last["progress"]["round"] > 1
    assert [len(row["returns"]) for row in rows] == [2] * (len(rows) - 1) + [3]
    assert rows[-1]["updates"] == last["updates"] and len(rows) < rounds
    assert folder.read_config()["schedule"]["rounds"] is None  # nor does a resumed run end by rounds
    before = files(tmp_path)
    run(["fit", "--run", str(tmp_path)])
    assert files(tmp_path) == before
