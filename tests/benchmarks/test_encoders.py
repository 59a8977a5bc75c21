"""The encoders' comparison: runs that end by the clock, and the page's arithmetic."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.encoders import pace
from benchmarks.encoders.page import at_frames, compared, gather, late, pick, table, write
from benchmarks.encoders.run import FILE, KINDS, ROOT, Job, jobs, words
from tests.training.conftest import CONFIGS, TINY, files
from worldmodel.training.cli import run
from worldmodel.training.run import RunFolder, load_checkpoint

CURVES = {  # of frames, minutes, return
    "conv": [[100, 1.0, 10.0], [300, 3.0, 30.0], [500, 4.0, 90.0]],
    "lite0": [[100, 1.5, 20.0], [200, 4.0, 60.0]],
}


def rows(seed: int = 0) -> list[dict]:
    return [
        {"task": "cartpole_balance", "encoder": encoder, "seed": seed, "metric": metric, "value": value}
        for encoder, curve in CURVES.items()
        for metric, value in {"curve": curve, "return_end": curve[-1][2] + seed, "limit": 4.0}.items()
    ]


def test_a_return_between_two_evaluations_lies_on_a_line() -> None:
    assert at_frames(CURVES["conv"], 200) == 20.0
    assert at_frames(CURVES["conv"], 450) == 75.0
    assert at_frames(CURVES["conv"], 500) == 90.0


def test_late_is_the_last_quarter_of_the_time() -> None:
    assert late(CURVES["conv"]) == 60.0
    assert late(CURVES["lite0"]) == 60.0


def test_equal_frames_are_the_most_that_all_runs_came_to() -> None:
    found = compared(rows())
    assert {row["value"] for row in pick(found, metric="equal_frames")} == {200}
    values = {row["encoder"]: row["value"] for row in pick(found, metric="return_at_equal_frames")}
    assert values == {"conv": 20.0, "lite0": 60.0}


def test_a_cell_holds_the_mean_and_every_seed() -> None:
    made = table(rows(0) + rows(10), {"return_end": ("return", ".0f"), "missing": ("missing", ".0f")})
    assert made.splitlines()[0] == "| encoder | return | missing |"
    assert "| 95 (90, 100) | - |" in made.splitlines()[2]
    assert len(made.splitlines()) == 2 + len(CURVES)


def test_the_page_is_made_from_what_is_measured(tmp_path: Path) -> None:
    for seed in (0, 1):
        job = Job("cartpole_balance", "both", seed)  # one file may hold any rows
        job.done(tmp_path).parent.mkdir(exist_ok=True)
        job.done(tmp_path).write_text(json.dumps(rows(seed)))
    write(tmp_path, tmp_path)
    page = (tmp_path / "encoders.md").read_text()
    assert "return at 200 frames" in page
    assert "| 60 (60, 61) |" in page and "90 (90, 91)" in page
    assert json.loads((tmp_path / "encoders.json").read_text()) == gather(tmp_path)
    assert (tmp_path / "encoders.png").stat().st_size > 1000


def test_runs_of_different_lengths_make_no_page(tmp_path: Path) -> None:
    job = Job("cartpole_balance", "both", 0)
    job.done(tmp_path).parent.mkdir()
    job.done(tmp_path).write_text(json.dumps([*rows(), rows()[-1] | {"value": 5.0}]))
    with pytest.raises(SystemExit, match="different times"):
        write(tmp_path, tmp_path)


def test_every_run_has_a_folder_and_a_command_of_its_own() -> None:
    found = jobs()
    assert len({job.folder(Path()) for job in found}) == len(found)
    commands = [words(job, 10, "RUN") for job in found]
    assert len({tuple(given) for given in commands}) == len(found)
    assert sum(FILE in given for given in commands) == len(found) * 3 // len(KINDS)  # neither scratch nor untrained
    for word in {word for given in commands for word in given if word.endswith(".yaml")}:
        assert (ROOT / word).is_file(), word


def test_a_run_ends_with_its_training_time_evaluated_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["worldmodel"])  # Lightning warns of pytest's own arguments
    monkeypatch.setattr(pace, "_seconds", lambda trainer: trainer.global_step)  # an update takes a second
    given = ["--config", str(CONFIGS / "base.yaml"), "--config", str(TINY), "--config"]
    given += [str(ROOT / "benchmarks/encoders/shared.yaml"), "--data.updates", "2", "--checkpoints.every", "1000"]
    given += ["--trainer.callbacks+=benchmarks.encoders.pace.Pace", f"--trainer.callbacks.minutes={9 / 60}"]
    given += ["--trainer.callbacks.every=3", "--trainer.callbacks.episodes=3"]
    run(["fit", *given, "--run", str(tmp_path / "run")])
    folder = RunFolder(tmp_path / "run")
    found = [(row["updates"], len(row["returns"])) for row in folder.read_evaluations()]
    assert found == [(2, 4), (6, 4), (10, 3)]  # at the ends of the epochs in which it was time
    assert load_checkpoint(folder.last)["global_step"] == 10
    before = files(folder.path)
    run(["fit", "--run", str(folder.path)])
    assert files(folder.path) == before


def test_a_run_without_time_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        pace.Pace(0)
