"""Tables and folders that are not as a run has left them: what can be read is read, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.strangers import TINY, make_run
from tests.training.conftest import words
from worldmodel.commands.imagine import read_actions
from worldmodel.commands.report_sections import learning
from worldmodel.errors import UserError
from worldmodel.experience.replay import Replay
from worldmodel.insight import plots
from worldmodel.training.cli import run
from worldmodel.training.metrics import MetricsTable
from worldmodel.training.run_folder import RunFolder
from worldmodel.types import ActionSpec

ROW = {"frames": 8, "updates": 4, "seconds": 1.0, "policy": "actor", "returns": [1.0], "return_mean": 1.0}
ROW |= {"return_std": 0.0}


def line(**changes: Any) -> bytes:
    return json.dumps(ROW | changes).encode() + b"\n"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        b"\n",
        b"{}\n",
        b"[1, 2]\n",
        b"\xff\xfe\x00\n",
        b"nothing at all\n",
        b"[" * 100_000 + b"\n",
        line(updates="4"),
        line(updates=None),
        line(updates=True),
        line(updates=-1),
        line(frames=1.5),
        line(returns=3),
        line(returns=[]),
        line(returns=["1"]),
        line(return_mean=float("nan")),
        line(return_mean=1e308),
        line(return_std=[0]),
        line(policy={"a": 1}),
        line(seconds="long"),
        line()[:20] + b"\n",
    ],
)
def test_a_line_that_is_no_evaluation_is_left_out_and_kept(folder: RunFolder, wrong: bytes) -> None:
    folder.evaluations.write_bytes(line() + wrong + line(updates=8) + line(updates=12)[:30])
    with pytest.warns(UserWarning, match=r"evaluations\.jsonl: line 2 is no evaluation and is left out \(1 are\)"):
        rows = folder.read_evaluations()
    assert [row["updates"] for row in rows] == [4, 8]
    plots.to_png(plots.learning_curve(rows))
    folder.forget_after(4)
    assert folder.evaluations.read_bytes() == line() + wrong


def test_a_line_that_a_kill_has_cut_swallows_no_other(folder: RunFolder) -> None:
    folder.evaluations.write_bytes(line()[:-10])
    folder.add_evaluation(ROW)
    folder.add_evaluation(ROW)
    with pytest.warns(UserWarning, match="line 1 is no evaluation"):
        assert folder.read_evaluations() == [ROW, ROW]


@pytest.mark.parametrize(
    ("text", "updates"),
    [
        (b"", []),
        (b"updates,loss/reward\n", []),
        (b"updates,loss/reward\n4,1.0\n8,2.0\n", [4, 8]),
        (b"updates,loss/reward\n4,1.0\n8", [4]),
        (b"updates,loss/reward\n4,1.0\n8,2.0,3.0\n12,1.0\n", [4, 12]),
        (b"updates,loss/reward\nmany,1.0\n8,2.0\n", [8]),
        (b"updates,loss/reward\n4,\xff\xfe\n8,2.0\n", [4, 8]),
        (b"updates,loss/reward\n4,\x00\n8,2.0\n", [4, 8]),
        (b"updates,loss/reward\n" + b"9" * 5000 + b",1\n8,2.0\n", [8]),
        (b"loss/reward,return\n1,2\n", []),
        (b"\x80\x81\x82", []),
        (b"updates,loss/reward\n4," + b"x" * 200_000 + b"\n", []),
    ],
)
def test_metrics(folder: RunFolder, text: bytes, updates: list[int]) -> None:
    folder.metrics.path.write_bytes(text)
    rows = folder.read_metrics()
    assert [row["updates"] for row in rows] == updates
    learning(folder, rows, updates=8, frames=8)


def test_metrics_that_cannot_be_read_are_kept(tmp_path: Path) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    table.path.write_bytes(b"loss,return\n1,2\n")
    with pytest.warns(UserWarning, match=r"is kept as metrics\.damaged\.csv"):
        table.forget_after(4)
    table.add({"loss": 1.0}, updates=4)
    assert [row["updates"] for row in table.read()] == ["4"]
    assert (tmp_path / "metrics.damaged.csv").read_bytes() == b"loss,return\n1,2\n"


def test_what_is_no_file_is_no_chunk(tmp_path: Path) -> None:
    def replay() -> Replay:
        return Replay(tmp_path, image_shape=(3, 4, 4), action_size=1)

    replay()
    (tmp_path / "00000000-0-0-5.npz").mkdir()
    os.mkfifo(tmp_path / "00000001-0-5-5.npz")
    with pytest.warns(UserWarning, match="which is no file"):
        assert len(replay()) == 0
    assert len(list(tmp_path.glob("*.npz"))) == 2


def no_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"")


def claims(path: Path) -> None:
    np.save(path, np.zeros((1, 2), np.float32))
    path.write_bytes(path.read_bytes().replace(b"(1, 2)", b"(99999999999, 2)"))


ACTIONS: list[tuple[str, Callable[[Path], Any]]] = [
    ("a zip", no_zip),
    ("a pipe", lambda path: os.mkfifo(path)),
    ("a folder", lambda path: path.mkdir()),
    ("a claim of 800 GB", claims),
    ("several arrays", lambda path: np.savez(path.open("wb"), a=np.zeros(3), b=np.zeros(3))),
    ("objects", lambda path: np.save(path, np.array([print, None]), allow_pickle=True)),
    ("text", lambda path: np.save(path, np.array([["left", "right"]]))),
    ("nothing", lambda path: path.touch()),
    ("garbage", lambda path: path.write_bytes(os.urandom(999))),
    ("no numbers", lambda path: np.save(path, np.full((3, 2), np.nan, np.float32))),
    ("complex numbers", lambda path: np.save(path, np.full((3, 2), 1j))),
]


@pytest.mark.parametrize("make", [x[1] for x in ACTIONS], ids=[x[0] for x in ACTIONS])
def test_actions(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "actions.npy")
    with pytest.raises(UserError, match="the actions"):
        read_actions(tmp_path / "actions.npy", ActionSpec(2, False))


def test_a_run_that_is_read_only_is_validated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["worldmodel"])
    folder = make_run(tmp_path / "run")
    inside, whole = folder.path.resolve(), Path.open

    def refusing(path: Path, mode: str = "r", *more: Any, **named: Any) -> Any:
        if ("w" in mode or "a" in mode or "+" in mode) and path.resolve().is_relative_to(inside):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return whole(path, mode, *more, **named)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(SystemExit) as end:
        run(["validate", "--run", str(folder.path), "--schedule.evaluation_episodes", "1"])
    said = capsys.readouterr()
    assert end.value.code == 2 and "actor: return" in said.out
    assert said.err.count("\n") == 1 and "(Read-only file system)" in said.err


@pytest.mark.parametrize("command", ["report", "validate", "export", "imagine"])
def test_a_name_that_is_too_long(command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    more = ["--out", str(tmp_path / "x.png")] if command in ("export", "imagine") else []
    with pytest.raises(SystemExit) as end:
        run([command, "--run", "x" * 5000, *more])
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1


LONG, PART, NUL = "x" * 5000, "a/" + "y" * 300, "a\0b"
NAMES = [  # what a name is given as, and the words before it
    ("--run", "fit --config {tiny}"),
    ("--config", "fit --run new"),
    ("--policy", "fit --config {tiny} --run new"),
    ("--checkpoint", "fit --config {tiny} --run new"),
    ("--task", "fit --run new"),
    ("--encoder", "fit --run new"),
    ("--data.task", "fit --config {tiny} --run new"),
    ("--policy", "validate --run {run}"),
    ("--checkpoint", "report --run {run}"),
    ("--actions", "imagine --run {run} --out x.png"),
    ("--out", "imagine --run {run} --horizon 2"),
    ("--policy", "imagine --run {run} --out x.png"),
    ("--run", "play --port 0"),
    ("--policy", "play --port 0 --run {run}"),
    ("--out", "export --run {run}"),
    ("--program", "export --run {run}"),
]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run").path


@pytest.mark.parametrize("name", [LONG, PART, NUL], ids=["long", "a long part", "NUL"])
@pytest.mark.parametrize(("option", "before"), NAMES, ids=[f"{words.split()[0]} {option}" for option, words in NAMES])
def test_a_name_that_no_file_has(
    untrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    complaint: Any,
    before: str,
    option: str,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = before.format(tiny=TINY, run=untrained).split()
    assert len(complaint([*given, f"{option}={name}"])) < 1400


CSV = "lightning.fabric.loggers.CSVLogger"
FILE = "model: {{world_model: {{init_args: {{encoder: {{class_path: encoders.checkpoint.CheckpointEncoder, init_args: "
FILE += (
    "{{file: {0}, architecture: {{class_path: encoders.torchvision.TorchvisionBackbone, init_args: {{name: resnet18}}}}"
)
FILE += "}}}}}}}}}}"


@pytest.mark.parametrize("name", [PART, '"a\\0b"'], ids=["a long part", "NUL"])
@pytest.mark.parametrize(
    "text",
    [
        "data: {{task: {0}:make}}",
        f"fabric: {{{{loggers: [{{{{class_path: {CSV}, init_args: {{{{root_dir: {{0}}}}}}}}}}]}}}}",
        FILE,
    ],
    ids=["module", "logger", "weights"],
)
def test_a_name_in_a_configuration_that_no_file_has(tmp_path: Path, complaint: Any, text: str, name: str) -> None:
    (tmp_path / "mine.yaml").write_text(text.format(name))
    assert len(complaint(words(tmp_path / "run", "--config", str(tmp_path / "mine.yaml")))) < 1400


def test_a_table_that_is_a_folder(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    folder.evaluations.unlink()
    folder.evaluations.mkdir()
    for act in (folder.read_evaluations, lambda: folder.add_evaluation(ROW), lambda: folder.forget_after(3)):
        with pytest.raises(UserError, match=r"evaluations\.jsonl"):
            act()
    shutil.rmtree(folder.evaluations)
    folder.add_evaluation(ROW)
    assert folder.read_evaluations() == [ROW]
