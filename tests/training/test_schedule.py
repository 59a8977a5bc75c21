"""Learning rates over a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.conftest import words
from worldmodel.training.cli import run
from worldmodel.training.run import load_checkpoint


@pytest.mark.parametrize("decay, share", [("1.0", 1.0), ("0.2", 1 - 0.8 * 3 / 4)])
def test_rates_fall_linearly_towards_the_last_epoch(tmp_path: Path, decay: str, share: float) -> None:
    run(words(tmp_path / "run", "--model.decay", decay, "--model.warmup", "0", "--model.learning_rate", "0.01"))
    (optimizer,) = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["optimizer_states"]
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(0.01 * share)  # in the last of four epochs


def test_rates_rise_over_the_warm_up(tmp_path: Path) -> None:
    run(words(tmp_path / "run", "--model.decay", "1.0", "--model.warmup", "32", "--model.learning_rate", "0.01"))
    (optimizer,) = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["optimizer_states"]
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(0.01 * 16 / 32)  # sixteen updates of thirty-two
