"""A run that begins with another run's world model, which goes on learning or is frozen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import worldmodel as wm
from tests.training.conftest import words
from worldmodel.training.average import mean_weights
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run
from worldmodel.training.run_folder import RunFolder

FREEZE = ("--model.freeze_world_model", "true")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose world model has learned, with another actor than the tiny configuration's."""
    folder = tmp_path_factory.mktemp("learned") / "run"
    run(words(folder, "--model.actor_critic.init_args.width", "8"))
    return folder


def of_model(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x for name, x in weights.items() if name.startswith("world_model.")}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(x, b[name]) for name, x in a.items())


def test_a_frozen_world_model_stays_as_it_was_and_the_actor_learns(
    learned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, folder = tmp_path / "source", tmp_path / "run"
    shutil.copytree(learned, source)
    told = ("--model.weights", "{reward: 2.0, actor: 0.5}")  # one that is not taken, one that is
    run(words(folder, "--pretrained", str(source), *FREEZE, *told, "--schedule.rounds", "2"))
    assert (
        f"begins with the world model of {source / 'checkpoints' / 'best.ckpt'}, of update" in capsys.readouterr().out
    )
    begun = load_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
    shutil.rmtree(source)
    run(words(folder, *FREEZE, *told))  # goes on without it
    weights = mean_weights(load_checkpoint(folder / "checkpoints" / "last.ckpt"))
    best = mean_weights(load_checkpoint(learned / "checkpoints" / "best.ckpt"))
    assert same(of_model(weights), of_model(best))
    for part in ("actor", "critic"):
        names = [name for name in begun if name.startswith(f"actor_critic.{part}.") and name.endswith("weight")]
        assert names and all(not torch.equal(weights[name], begun[name]) for name in names)
    row = RunFolder(folder).read_metrics()[-1]
    assert {name for name in row if name.startswith("loss/")} == {
        *("loss/actor", "loss/critic", "loss/replay_critic", "loss/total")
    }
    assert row["loss/total"] == pytest.approx(
        0.5 * row["loss/actor"] + row["loss/critic"] + 0.3 * row["loss/replay_critic"]
    )
    agent, data = wm.load(folder)
    data.close()
    assert agent.frozen and agent.updates == 16


def test_a_world_model_that_is_not_frozen_learns_on(learned: Path, tmp_path: Path) -> None:
    last = learned / "checkpoints" / "last.ckpt"
    run(words(tmp_path / "run", "--pretrained", str(last), "--schedule.rounds", "1", "--schedule.updates", "1"))
    source = of_model(mean_weights(load_checkpoint(last)))
    weights = of_model(load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state_dict"])
    moved = [float((weights[name] - x).abs().max()) for name, x in source.items() if name.endswith("weight")]
    assert 0 < max(moved) < 1e-3  # one step from there, not from elsewhere


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (FREEZE, "model.freeze_world_model wants one that has learned: --pretrained runs/NAME says which"),
        ((*FREEZE, "--model.actor_critic", "null"), "nothing is left that learns"),
        (
            ("--pretrained", "{learned}", "--model.world_model.init_args.deter", "8"),
            "does not fit the configuration: world_model.",
        ),
        (("--pretrained", "nowhere"), "there is no checkpoint nowhere"),
    ],
)
def test_what_does_not_go_together_is_said_and_leaves_no_trace(
    learned: Path, tmp_path: Path, complaint: Any, more: tuple[str, ...], said: str
) -> None:
    given = [word.replace("{learned}", str(learned)) for word in more]
    assert said in complaint(words(tmp_path / "run", *given))
    assert not (tmp_path / "run" / "config.yaml").exists()
