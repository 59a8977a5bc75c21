"""Two processes do not train in one run folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import files, words
from worldmodel.errors import UserError
from worldmodel.training.cli import run
from worldmodel.training.early import free_folder
from worldmodel.training.lock import locked

HOLD = "import sys, pathlib\nfrom worldmodel.training.lock import locked\n"
HOLD += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def holder(finished: Path) -> Iterator[subprocess.Popen]:
    """A process that holds a finished run's folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(finished)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_gets_one_line_and_death_frees_it(finished: Path, holder: subprocess.Popen, complaint: Any) -> None:
    before = files(finished)
    error = complaint(["fit", "--run", str(finished), "--schedule.rounds", "5"])
    assert f"{finished} is in use by another process that trains in it: wait, or use another" in error
    assert files(finished) == before
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    run(["fit", "--run", str(finished), "--schedule.rounds", "5"])


def test_a_run_can_be_looked_at_while_it_trains(finished: Path, holder: subprocess.Popen) -> None:
    rows = (finished / "evaluations.jsonl").read_text()
    run(["imagine", "--run", str(finished), "--out", str(finished / "dream.png"), "--horizon", "2"])
    run(["validate", "--run", str(finished)])
    assert (finished / "dream.png").stat().st_size
    assert (finished / "evaluations.jsonl").read_text() == rows
    assert len((finished / "validations.jsonl").read_text().splitlines()) == 1
    assert holder.poll() is None  # and the other has it still


def test_what_cannot_be_built_leaves_no_trace(tmp_path: Path, complaint: Any) -> None:
    complaint(words(tmp_path / "run", "--data.task", "no_such_task"))
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    assert "cannot write to" in complaint(words(tmp_path / "file"))


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(free_folder, ["pointreach"] * 32))
    assert sorted(names) == sorted(f"runs/pointreach-{number}" for number in range(1, 33))


def test_one_lock_at_a_time(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "a"), pytest.raises(UserError, match="in use"), locked(tmp_path / "a"):
            pass
        assert not (tmp_path / "a").exists()
