"""The real command line, in this process and on something tiny."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldmodel.experience.replay import Replay
from worldmodel.training.cli import run

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = Path(__file__).parent / "tiny.yaml"


def words(folder: Path, *more: str) -> list[str]:
    """The command line that trains something tiny in ``folder``, or resumes it."""
    return ["fit", "--config", str(CONFIGS / "base.yaml"), "--config", str(TINY), "--run", str(folder), *more]


def files(folder: Path) -> dict[str, bytes]:
    """All that a folder holds."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def numbered(folder: Path, lengths: Sequence[int]) -> Replay:
    """A replay of episodes of these lengths, whose rewards are 100 times their number, and a record's place."""
    replay = Replay(folder, image_shape=(3, 4, 4), action_size=1)
    for number, length in enumerate(lengths):
        records = np.zeros(length, replay.dtype)
        records["is_first"][0] = True
        records["reward"] = 100 * number + np.arange(length)
        replay.add_episode(records)
    return replay


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line that fails; gives its one line."""

    def fails(given: list[str]) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            run(given)
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("worldmodel: ") and error.count("\n") == 1, error
        return error

    return fails


@pytest.fixture(autouse=True)
def _bare_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["worldmodel"])  # Lightning warns of pytest's own arguments


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["worldmodel"])
        run(words(folder))
    return folder


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished tiny run."""
    return Path(shutil.copytree(_finished, tmp_path / "finished"))
