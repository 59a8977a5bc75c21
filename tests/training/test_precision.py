"""Mixed precision through the real command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.conftest import words
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run

GAUSSIAN = ["--model.world_model.latents", "worldmodel.model.distributions.GaussianLatents"]


@pytest.mark.parametrize("latents", [[], GAUSSIAN], ids=["categorical", "gaussian"])
def test_bf16_trains_and_keeps_its_weights_in_full_precision(tmp_path: Path, latents: list[str]) -> None:
    run(words(tmp_path / "run", "--fabric.precision", "bf16-mixed", "--schedule.rounds", "2", *latents))
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert checkpoint["optimizer"]["counters"][1] == 0 and checkpoint["updates"] == 8
    weights = [x for x in checkpoint["state_dict"].values() if x.is_floating_point()]
    assert all(x.isfinite().all() and x.element_size() == 4 for x in weights)
