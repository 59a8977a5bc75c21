from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import files, words
from worldmodel.commands.export import light
from worldmodel.errors import UserError
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import run
from worldmodel.training.data import open_replay
from worldmodel.training.loading import load_run
from worldmodel.training.run_folder import RunFolder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    agent, data = load_run(folder)
    data.close()
    return agent.state_dict()


def test_what_is_exported_is_the_same_model(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, small = files(finished), tmp_path / "new" / "small"
    run(["export", "--run", str(finished), "--out", str(small), "--episodes", "3"])
    assert files(finished) == before
    made = files(small)
    size = sum(map(len, made.values()))
    assert capsys.readouterr().out == f"wrote {small}: {size / 1e6:.1f} MB, 3 episodes\n"
    for name in ("config.yaml", "evaluations.jsonl"):
        assert made.pop(name) == before[name]
    assert sorted(made) == ["checkpoints/best.ckpt", *(f"replay/rank_0/0000000{i}-episode-0-33.npz" for i in range(3))]
    assert len(made["checkpoints/best.ckpt"]) < 0.6 * len(before["checkpoints/best.ckpt"])

    (one, its_data), (other, data) = load_run(finished), load_run(small)
    assert other.updates == one.updates and data.frames == its_data.frames
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in one.state_dict().items())
    newest = [records for _, records in open_replay(finished, its_data).episodes(newest=3, ended=True)]
    copied = [records for _, records in open_replay(small, data).episodes()]
    assert len(copied) == 3 and all(np.array_equal(x, y) for x, y in zip(newest, copied, strict=True))
    its_data.close(), data.close()


def test_half_of_the_space(finished: Path, tmp_path: Path) -> None:
    for name, half in (("whole", "false"), ("half", "true")):
        run(["export", "--run", str(finished), "--out", str(tmp_path / name), "--half", half, "--episodes", "0"])
    whole, half = (RunFolder(tmp_path / name).best.stat().st_size for name in ("whole", "half"))
    assert half < 0.85 * whole  # of what is tiny, much are names
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "half")
    assert all(x.dtype == other[name].dtype for name, x in one.items())
    assert max(float((x - other[name]).abs().max()) for name, x in one.items() if x.is_floating_point()) < 2e-3
    assert torch.equal(one["world_model.typical_uncertainty"], other["world_model.typical_uncertainty"])


def test_numbers_beyond_float16_stay(finished: Path) -> None:
    checkpoint = load_checkpoint(RunFolder(finished).best)
    del checkpoint["average"]
    checkpoint["state_dict"] = {"large": torch.full((2, 2), 1e6), "matrix": torch.ones(2, 2), "few": torch.ones(2)}
    kinds = {name: x.dtype for name, x in light(checkpoint, half=True)["state_dict"].items()}
    assert kinds == {"large": torch.float32, "matrix": torch.float16, "few": torch.float32}


@pytest.fixture
def small(finished: Path, tmp_path: Path) -> Path:
    run(["export", "--run", str(finished), "--out", str(tmp_path / "small")])
    return tmp_path / "small"


def test_it_can_be_looked_at(small: Path) -> None:
    short = ["--horizon", "4", "--context", "2"]
    run(["imagine", "--run", str(small), "--out", str(small / "dream.png"), *short])
    run(["report", "--run", str(small), "--episodes", "4", *short])
    page = (small / "report.html").read_text()
    assert "There is no film of these weights: worldmodel validate" in page and "there is no metrics.csv" in page
    evaluations = RunFolder(small).read_evaluations()
    run(["validate", "--run", str(small)])
    (row,) = RunFolder(small).read_validations()
    assert row["seconds"] > 0 and RunFolder(small).film(row["updates"]) is not None
    assert RunFolder(small).read_evaluations() == evaluations


def test_it_cannot_be_trained_on(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(small)
    best, more = ["--checkpoint", str(small / "checkpoints/best.ckpt")], ["--schedule.rounds", "6"]
    for given, message in (
        (["fit", "--run", str(small), *more], "holds no last.ckpt to go on from, only weights: begin another run with"),
        ([*words(tmp_path / "other"), *best], "best.ckpt holds weights only: nothing can be trained on from it"),
    ):
        with pytest.raises(SystemExit) as end:
            run(given)
        error = capsys.readouterr().err
        assert end.value.code == 2 and message in error and error.count("\n") == 1, error
    assert files(small) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--run", "{run}/nothing"], "holds no run"),
        (
            ["--checkpoint", "no/such.ckpt"],
            "train first, or name another with --checkpoint",
        ),
        (["--out", "{run}"], "is not empty: name a folder"),
        (["--out", "{run}/config.yaml"], "is not empty: name a folder"),
        (["--episodes", "-1"], "episodes is -1: it must be 0 or more"),
        (["--hlf", "true"], "no option hlf: did you mean half?"),
    ],
)
def test_mistakes(finished: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str) -> None:
    before = files(finished)
    words = {"--run": str(finished), "--out": str(finished.parent / "out")}
    words |= {given[0]: given[1].format(run=finished)}
    with pytest.raises(SystemExit) as end:
        run(["export", *(word for pair in words.items() for word in pair)])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1, error
    assert files(finished) == before and not (finished.parent / "out").exists()


def test_a_damaged_checkpoint_is_named_and_the_way_out(finished: Path) -> None:
    folder = RunFolder(finished)
    folder.best.unlink()
    folder.last.write_bytes(b"none of ours")
    with pytest.raises(UserError, match=r"last\.ckpt is damaged .*best\.ckpt may serve with --checkpoint"):
        load_run(finished)
