"""The encoders' comparison: every run's command, and the page's arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.encoders.page import at_frames, compared, gather, late, pick, table, write
from experiments.encoders.run import FILE, KINDS, Job, jobs, words
from experiments.runner import ROOT

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
