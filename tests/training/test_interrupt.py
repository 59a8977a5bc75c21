"""Ctrl-C and SIGTERM, and what nobody must lose."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.resume import differences, outcome
from tests.training.conftest import files, words
from worldmodel.control.controller import LatentPolicy
from worldmodel.experience.collector import RandomPolicy
from worldmodel.training.agent import Agent
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run
from worldmodel.training.interrupt import Stop


def after(
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
    then: Callable[[], None],
    *,
    of: Any = Agent,
    method: str = "update",
    counts: Callable[[Any], bool] = lambda _: True,
) -> Iterator[int]:
    """Let something happen in a call of a method, once that many were made; how many there were comes next."""
    called, count = getattr(of, method), iter(range(10**6))

    def watched(self: Any, *given: Any) -> Any:
        if counts(self) and next(count) == calls:
            then()
        return called(self, *given)

    monkeypatch.setattr(of, method, watched)
    return count


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_in_the_middle_of_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)  # whatever started the tests
    run(words(tmp_path / "calm"))
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        after(patch, 5, lambda: os.kill(os.getpid(), number))
        run(words(tmp_path / "cut"))
    assert end.value.code == code
    folder = tmp_path / "cut"
    said = capfd.readouterr().out
    assert "stopping after this update" in said
    assert f"stopped after update 6, saved: worldmodel fit --run {folder} goes on\n" in said
    assert load_checkpoint(folder / "checkpoints/last.ckpt")["updates"] == 6
    run(["fit", "--run", str(folder)])
    assert "resuming from update 6\n" in capfd.readouterr().out
    assert differences(outcome(tmp_path / "calm"), outcome(folder)) == []
    calm, cut = (load_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("calm", "cut"))
    assert all(torch.equal(x, cut["state_dict"][name]) for name, x in calm["state_dict"].items())


def test_an_evaluation_is_left_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)
    run(words(tmp_path / "calm"))
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        stop = partial(os.kill, os.getpid(), signal.SIGINT)
        count = after(patch, 3, stop, of=LatentPolicy, method="__call__", counts=lambda policy: not policy.explore)
        run(words(tmp_path / "cut"))
    assert end.value.code == 130 and next(count) == 4  # it was left at the next step
    assert "stopped after update 8, saved" in capfd.readouterr().out
    assert not (tmp_path / "cut/evaluations.jsonl").exists()
    run(["fit", "--run", str(tmp_path / "cut")])
    assert differences(outcome(tmp_path / "calm"), outcome(tmp_path / "cut")) == []


def test_the_first_records_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)
    run(words(tmp_path / "calm"))
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        stop = partial(os.kill, os.getpid(), signal.SIGTERM)
        after(patch, 20, stop, of=RandomPolicy, method="__call__")
        run(words(tmp_path / "cut"))
    assert end.value.code == 143 and "stopped after update 0, saved" in capfd.readouterr().out
    run(["fit", "--run", str(tmp_path / "cut")])
    said = capfd.readouterr().out
    assert "resuming from update 0\n" in said and "filling the replay with 56 records" in said
    assert differences(outcome(tmp_path / "calm"), outcome(tmp_path / "cut")) == []


def test_a_second_signal_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.number, left) == (signal.SIGTERM, [])
        os.kill(os.getpid(), signal.SIGTERM)
    assert left == [143] and signal.getsignal(signal.SIGTERM) is before


def test_a_replay_without_a_checkpoint_is_used_and_not_deleted(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = files(finished / "replay")
    (tmp_path / "run").mkdir()
    (finished / "replay").rename(tmp_path / "run" / "replay")
    capsys.readouterr()
    run(words(tmp_path / "run", "--schedule.rounds", "1"))
    assert "records already: they are used\n" in capsys.readouterr().out
    now = files(tmp_path / "run" / "replay")
    assert held and held.items() <= now.items()


def test_a_run_says_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    given = words(tmp_path)
    given = [word for word in given if word not in ("--run", str(tmp_path))]
    for number in (1, 2):
        run([*given, "--schedule.rounds", "1"])
        said = capsys.readouterr().out
        name = f"runs/pointreach-{number}"
        for told in (f"folder    {name}, new\n", "PointReach, 2 environments", "4 updates", "parameters that learn"):
            assert told in said, told
        assert "filling the replay with 100 records" in said and "of which the replay 0." in said
        lines = [line for line in said.splitlines() if line.startswith("frames")]
        assert "updates      1 " in lines[0] and "- updates/s" in lines[0] and "updates      4 " in lines[-1]
        assert f"next: worldmodel report --run {name}\n      worldmodel play --run {name}" in said
    run(["fit", "--run", "runs/pointreach-1"])
    assert "runs/pointreach-1 is finished (1 rounds, 4 updates)" in capsys.readouterr().out
    run(["fit", "--run", "runs/pointreach-1", "--schedule.rounds", "2"])
    said = capsys.readouterr().out
    assert "which goes on" in said and "left      4 updates, about 0m" in said


def test_what_comes_to_nothing_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(["fit", "--task", "point_reach", "--data.batch", "0"])
    assert not list(tmp_path.glob("runs/*"))
