"""Runs that do not learn by drawing: they train, resume, and are looked at if a decoder stands beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import CONFIGS, words
from tests.training.test_resume import outcome
from worldmodel.training.calibrating import calibrated
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run

NO_DECODER = ["--model.world_model.decoder", "null"]
LOOK = {
    "report": ["--episodes", "4", "--horizon", "6", "--context", "2"],
    "imagine": ["--out", "dream.png", "--horizon", "6", "--context", "3"],
    "play": ["--port", "0"],
}


def chosen(name: str, *more: str) -> list[str]:
    return ["--representation", str(CONFIGS / f"representation/{name}.yaml"), *more, "--schedule.rounds", "2"]


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with no decoder at all."""
    folder = tmp_path_factory.mktemp("runs") / "blind"
    run(words(folder, *chosen("barlow", *NO_DECODER), "--schedule.calibration_episodes", "4"))
    return folder


def test_a_run_without_a_decoder_trains(blind: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = load_checkpoint(blind / "checkpoints/last.ckpt")["state_dict"]
    assert not any(".decoder." in name for name in state) and "world_model.representation.project.weight" in state
    assert "barlow_correlation" in (blind / "metrics.csv").read_text()
    assert not list(blind.glob("videos/open_loop*")) and list(blind.glob("videos/episode*"))
    run(["validate", "--run", str(blind), "--schedule.evaluation_episodes", "1"])
    assert json.loads((blind / "validations.jsonl").read_text())["policy"] == "actor"
    run(["fit", "--run", str(blind)])
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize("command", LOOK)
def test_what_draws_says_in_one_line_that_there_is_no_decoder(
    blind: Path, complaint: Any, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "this run has no decoder" in complaint([command, "--run", str(blind), *LOOK[command]])


def test_the_end_of_training_says_so_too(blind: Path) -> None:
    assert calibrated(blind, 4).startswith("nothing is known of how wrong its dreams are: this run has no decoder")


DYNA = ["--config", str(CONFIGS / "policy/dyna.yaml"), "--model.actor_critic.init_args.imagined_after", "6"]


@pytest.mark.parametrize(("name", "more"), [("infonce", []), ("next_embedding", DYNA)], ids=["infonce", "dyna"])
def test_with_a_decoder_beside_all_is_drawn_and_a_run_goes_on_as_if_it_had_not_stopped(
    tmp_path: Path, name: str, more: list[str]
) -> None:
    run(words(tmp_path / "whole", *chosen(name), *more))
    run(words(tmp_path / "cut", *chosen(name), *more, "--schedule.rounds", "1"))
    run(["fit", "--run", str(tmp_path / "cut"), "--schedule.rounds", "2"])
    whole, cut = outcome(tmp_path / "whole"), outcome(tmp_path / "cut")
    assert whole["metrics"][-1].keys() == cut["metrics"][-1].keys()
    one, two = (load_checkpoint(tmp_path / x / "checkpoints/last.ckpt")["state_dict"] for x in ("whole", "cut"))
    assert all(value.equal(two[key]) for key, value in one.items())
    assert list(tmp_path.glob("whole/videos/open_loop*"))
    run(["imagine", "--run", str(tmp_path / "whole"), *LOOK["imagine"][:1], str(tmp_path / "x.png"), "--horizon", "6"])
    assert (tmp_path / "x.png").exists()
