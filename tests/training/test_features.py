"""Stored features change nothing but the time that an update takes."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import nn

from benchmarks.resume import differences, outcome, torture
from tests import tiny
from tests.frozen import FrozenConv
from tests.training.conftest import files, words
from tests.training.forked import Forked
from worldmodel.control.actor_critic import ActorCritic, ThroughModel
from worldmodel.control.propagation import TS1
from worldmodel.model.world_model import Metrics
from worldmodel.training.agent import Agent
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run
from worldmodel.training.data import open_replay
from worldmodel.training.loading import load_run
from worldmodel.training.optimizer import Optimizer
from worldmodel.types import ActionSpec, SequenceBatch

FROZEN = ["--model.world_model.init_args.encoder", "tests.frozen.FrozenConv"]
STORED = [*FROZEN, "--data.store_features", "true"]
TUNED = [*FROZEN, "--model.world_model.init_args.encoder.init_args.tuned", "true"]


def agent(tuned: bool = False, **rates: float) -> Agent:
    torch.manual_seed(0)
    return Agent(
        ActionSpec(tiny.ACTION, discrete=False),
        lambda _: tiny.world_model(encoder=FrozenConv(tuned=tuned)),
        lambda action, size: ActorCritic(action, size, ThroughModel(), TS1(), width=16, horizon=3, starts=8),
        optimizer=Optimizer(**rates),
    ).setup()


def with_features(batch: SequenceBatch) -> SequenceBatch:
    """Made image by image, as a collector with one environment does."""
    images = batch.image.flatten(0, 1).split(1)
    features = torch.cat([FrozenConv().features(image) for image in images])
    return batch._replace(features=features.unflatten(0, batch.reward.shape))


def trained(updated: Agent, batches: list[SequenceBatch], seed: int = 0) -> list[float]:
    """The joint loss of every update."""
    torch.manual_seed(seed)
    return [float(updated.update(batch)["loss/total"]) for batch in batches]


def moved(before: nn.Module, after: nn.Module) -> float:
    """The furthest that a weight went."""
    return max(
        float((a - b).detach().abs().max()) for a, b in zip(before.parameters(), after.parameters(), strict=True)
    )


def test_updates_are_the_same_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    one = agent()
    other = agent()
    batches = [tiny.batch(3, 6, seed=seed) for seed in range(6)]
    stored = [with_features(batch) for batch in batches]
    losses = trained(one, batches)
    monkeypatch.setattr(FrozenConv, "looks", [])
    assert trained(other, stored) == pytest.approx(losses, rel=1e-4) and len(set(losses)) == 6
    assert FrozenConv.looks == []
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[name], atol=2e-3, rtol=0.05, msg=name)


def test_a_batch_travels_with_its_features_or_without() -> None:
    batch = with_features(tiny.batch(2, 3))._replace(vector=torch.zeros(2, 3, 4))
    there = move_data_to_device(batch, torch.device("meta"))
    assert type(there) is SequenceBatch and all(x.device.type == "meta" for x in there)
    without = move_data_to_device(batch._replace(features=None, vector=None), torch.device("meta"))
    assert without.features is without.vector is None and without.image.device.type == "meta"


def test_a_run_is_the_same_to_the_last_digit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[list[int]] = []  # what the encoder is shown in updates
    update = Agent.update

    def watched(self: Agent, batch: SequenceBatch) -> Metrics:
        monkeypatch.setattr(FrozenConv, "looks", [])
        metrics = update(self, batch)
        during.append(list(FrozenConv.looks))
        return metrics

    monkeypatch.setattr(Agent, "update", watched)
    run(words(tmp_path / "without", *FROZEN))
    run(words(tmp_path / "stored", *STORED))
    assert during == [[4 * 8]] * 16 + [[]] * 16
    assert differences(outcome(tmp_path / "without"), outcome(tmp_path / "stored")) == []
    without, stored = (load_checkpoint(tmp_path / x / "checkpoints/last.ckpt") for x in ("without", "stored"))
    for name, value in without["state_dict"].items():
        assert torch.equal(value, stored["state_dict"][name]), name
    held = json.loads((tmp_path / "stored/replay/rank_0/features.json").read_text())
    assert held == {"shape": [6, 4, 4], "identity": FrozenConv().identity()}


def test_killed_and_resumed_to_the_last_digit(tmp_path: Path) -> None:
    long = [*STORED, "--schedule.rounds", "6"]
    Forked(words(tmp_path / "warm", *STORED, "--schedule.rounds", "1")).wait()
    start = time.monotonic()
    assert Forked(words(tmp_path / "calm", *long)).wait() == 0
    seconds = time.monotonic() - start

    def again() -> Forked:
        return Forked(words(tmp_path / "troubled", *long))

    assert torture(again, 3, 0.1 * seconds, 0.8 * seconds, seed=1) >= 1
    assert differences(outcome(tmp_path / "calm"), outcome(tmp_path / "troubled")) == []
    assert files(tmp_path / "calm/replay") == files(tmp_path / "troubled/replay")


def test_stored_features_are_read_again(tmp_path: Path) -> None:
    run(words(tmp_path / "run", *STORED, "--schedule.rounds", "1"))
    before = files(tmp_path / "run")
    loaded, data = load_run(tmp_path / "run", trust_code=True)
    data.close()
    batch = open_replay(tmp_path / "run", data).sample(4, 8)
    encoder = loaded.world_model.encoder
    assert batch.features is not None
    assert torch.equal(batch.features.flatten(0, 1), encoder.features(batch.image.flatten(0, 1)))
    assert files(tmp_path / "run") == before
    run(
        [
            "report",
            "--run",
            str(tmp_path / "run"),
            "--trust-code",
            "--episodes",
            "4",
            "--horizon",
            "3",
            "--context",
            "3",
        ]
    )
    assert (tmp_path / "run/report.html").exists()


@pytest.mark.parametrize("encoder", [[], TUNED], ids=["from scratch", "tuned"])
def test_nothing_frozen_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], encoder: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(words(tmp_path / "run", "--data.store_features", "true", *encoder))
    error = capsys.readouterr().err
    kind = "FrozenConv" if encoder else "PatchEncoder"
    assert end.value.code == 2 and error.count("\n") == 1
    assert f"data.store_features wants a frozen encoder: {kind} as it is set has no frozen part to store" in error
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_what_is_frozen_is_never_given_to_the_optimizer() -> None:
    frozen = agent()
    before = agent()
    assert list(frozen.parts) == ["world_model", "actor", "critic"]
    assert len(frozen.optimizer.adam.param_groups) == 3
    trained(frozen, [tiny.batch()])
    old, new = before.world_model.encoder, frozen.world_model.encoder
    assert isinstance(old, FrozenConv) and isinstance(new, FrozenConv)
    assert new.backbone.weight.grad is None and moved(old.backbone, new.backbone) == 0
    assert moved(old.adapter, new.adapter) > 0


def test_tuned_weights_move_at_their_own_rate() -> None:
    steps = {}
    for rate in (0.0, 1e-5, 1e-3):
        tuned = agent(tuned=True, pretrained_learning_rate=rate, learning_rate=3e-3, adam_epsilon=1e-15, warmup=0)
        before = agent(tuned=True)
        parts = tuned.parts
        assert list(parts) == ["world_model", "actor", "critic", "pretrained"]
        assert tuple(tuned.optimizer.rates.values()) == (3e-3, 1e-4, 1e-4, rate)
        assert tuple(tuned.optimizer.clip.values()) == (100.0, 1.0, 10.0, 100.0)
        given = [id(p) for part in parts.values() for p in part]
        assert len(set(given)) == len(given) == sum(p.requires_grad for p in tuned.parameters())
        trained(tuned, [tiny.batch()])
        old, new = before.world_model.encoder, tuned.world_model.encoder
        assert isinstance(old, FrozenConv) and isinstance(new, FrozenConv)
        steps[rate] = moved(old.backbone, new.backbone)
        assert moved(old.adapter, new.adapter) == pytest.approx(3e-3, rel=1e-3)
    assert steps[0.0] == 0  # Adam's first step is the rate itself, for every weight
    assert steps[1e-5] == pytest.approx(1e-5, rel=0.05) and steps[1e-3] == pytest.approx(1e-3, rel=1e-3)


def test_a_tuned_encoder_resumes(tmp_path: Path) -> None:
    run(words(tmp_path / "straight", *TUNED))
    for rounds in ("2", "4"):
        run(words(tmp_path / "resumed", *TUNED, "--schedule.rounds", rounds))
    assert differences(outcome(tmp_path / "straight"), outcome(tmp_path / "resumed")) == []
    straight, resumed = (load_checkpoint(tmp_path / x / "checkpoints/last.ckpt") for x in ("straight", "resumed"))
    name = "world_model.encoder.backbone.weight"
    assert torch.equal(straight["state_dict"][name], resumed["state_dict"][name])
    assert not torch.equal(straight["state_dict"][name], FrozenConv().backbone.weight)
    optimizer = resumed["optimizer"]["adam"]
    # sixteen updates of a hundred that warm up
    assert [group["lr"] for group in optimizer["param_groups"]] == pytest.approx([1.6e-4, 4.8e-5, 4.8e-5, 1.6e-6])
    with (tmp_path / "resumed/metrics.csv").open(newline="") as file:
        norms = [row["gradient/pretrained"] for row in csv.DictReader(file) if row["loss/total"]]
    assert len(norms) == 4 and all(float(norm) > 0 for norm in norms)
