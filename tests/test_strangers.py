"""Looking at a run of somebody else runs nothing of theirs, and a run of one's own opens when one says that it may."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.strangers import altered, make_run, say
from worldmodel.errors import UserError
from worldmodel.training.cli import run
from worldmodel.training.fit import fit
from worldmodel.training.loading import load_run
from worldmodel.training.run_folder import RunFolder

SYSTEM = {"class_path": "os.system"}
EVIL = """
from pathlib import Path
Path({mark!r}).touch()
import gymnasium
from encoders.conv import PatchEncoder
from worldmodel.experience.toy import PointReach as Own
class Encoder(PatchEncoder): ...
def make(*_): ...
gymnasium.register("Evil-v0", entry_point="runs.evil:Own")
"""


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("strangers") / "stranger").path


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once something has acted: a module in the current folder, or a command."""
    mark = tmp_path / "acted"
    (tmp_path / "runs").mkdir(exist_ok=True)
    (tmp_path / "runs" / "evil.py").write_text(EVIL.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "argv", ["worldmodel"])

    def act(*_: Any, **__: Any) -> None:
        mark.touch()

    for module, name in ((os, "system"), (os, "abort"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, act)
    yield mark
    for name in ("runs", "runs.evil"):
        sys.modules.pop(name, None)


@pytest.fixture
def folder(_made: Path, tmp_path: Path) -> RunFolder:
    """A stranger's run, where one would put it."""
    return RunFolder(shutil.copytree(_made, tmp_path / "runs" / "stranger"))


IMPORTED = "would be imported: --trust-code"
PRETRAINED = {"backbone": {"class_path": "encoders.torchvision.TorchvisionBackbone", "init_args": {"name": "resnet18"}}}
CEM = {"class_path": "worldmodel.control.planners.cem.CEM"}
PLANNER = "worldmodel.control.planner_controller.PlannerController"
NAMED = [  # (place in config.yaml, value, what is said of it)
    ("model.world_model", SYSTEM, f"model.world_model: 'os.system' {IMPORTED}"),
    ("model.world_model", "os.system", IMPORTED),
    ("model.world_model", "{class_path: os.system}", IMPORTED),
    ("model.world_model.transition", SYSTEM, f"model.world_model.transition: 'os.system' {IMPORTED}"),
    ("model.world_model.decoder", SYSTEM, IMPORTED),
    ("model.world_model.latents", {"class_path": "subprocess.Popen"}, "'subprocess.Popen' would be imported"),
    ("model.world_model.encoder", "runs.evil.Encoder", f"'runs.evil.Encoder' {IMPORTED}"),
    ("model.world_model.encoder", {"class_path": "Encoder"}, IMPORTED),
    ("model.world_model.encoder", {"class_path": "os.system", "init_args": {"command": "true"}}, IMPORTED),
    (
        "model.world_model.encoder",
        {"class_path": "encoders.pretrained.Pretrained", "init_args": {**PRETRAINED, "readout": "os.system"}},
        "model.world_model.encoder.readout: 'os.system' would be imported",
    ),
    (
        "model.world_model.encoder",
        {"class_path": "encoders.cameras.Cameras", "init_args": {"encoders": "[{class_path: os.system}]"}},
        "wanted are several, and not a text",
    ),
    (
        "model.world_model.decoder",
        {"class_path": "worldmodel.model.decoder.CamerasDecoder", "init_args": {"decoders": [SYSTEM]}},
        "model.world_model.decoder.decoders[0]: 'os.system' would be imported",
    ),
    ("model.world_model.deter", SYSTEM, "a class is named where none is wanted"),
    ("model.world_model.more", SYSTEM, "model.world_model has no option more"),
    ("model.actor_critic", SYSTEM, f"model.actor_critic: 'os.system' {IMPORTED}"),
    ("model.actor_critic.objective", "runs.evil.make", IMPORTED),
    ("model.actor_critic.uncertainty_weight", "runs.evil.make", IMPORTED),
    ("model.collect_with", "os.abort", IMPORTED),
    ("model.evaluate_with", {"class_path": PLANNER, "init_args": {"planner": SYSTEM}}, IMPORTED),
    ("model.evaluate_with", {"class_path": PLANNER, "dict_kwargs": {"planner": SYSTEM}}, "and nothing else"),
    (
        "model.evaluate_with",
        {"class_path": PLANNER, "init_args": {"planner": CEM, "label": "x/../../../../acted"}},
        "a label has 1 to 40 letters",
    ),
    ("model.weights", {"reward": SYSTEM}, "a class is named where none is wanted"),
    ("model.world_model", "worldmodel.training.fit.fit", "is no class of worldmodel or encoders"),
    ("model.world_model", "worldmodel.training.api.Path", "is no class of worldmodel or encoders"),
    ("model.world_model", "worldmodel.model.world_model.nn.Linear", "worldmodel.model.world_model has no nn"),
    ("model.world_model", "worldmodel.experience.replay.Replay", "Replay is no WorldModel"),
    ("model.world_model.encoder", "tests.strangers.make_run", IMPORTED),
    ("model.world_model.init_args", "runs/evil.yaml", "wanted is a group of settings"),
    ("model.world_model.class_path", "encoders", IMPORTED),
    ("model", {"world_model.class_path": "os.system"}, "no option model.world_model.class_path"),
    ("optimizer", "runs/evil.yaml", "optimizer: wanted is a group of settings"),
    ("data.task", "os:abort", "data.task would import 'os' to make 'abort': --trust-code"),
    ("data.task", "runs.evil:make", "data.task would import 'runs.evil'"),
    ("data.task", "runs.evil:Evil-v0", "data.task would import 'runs.evil'"),
    ("data.task", "worldmodel.training.fit:fit", "data.task would import 'worldmodel.training.fit'"),
    ("data.task", "worldmodel.experience.toy:gymnasium", "data.task would import"),
    ("data.task", ["os:abort"], "data.task is no text"),
]


@pytest.mark.parametrize(("place", "value", "message"), NAMED)
def test_what_a_config_names_does_not_act(folder: RunFolder, mark: Path, place: str, value: Any, message: str) -> None:
    altered(folder, (place, value))
    with pytest.raises(UserError) as said:
        load_run(folder.path)
    assert message in str(said.value) and "\n" not in str(said.value)
    assert "label" in message or str(folder.config) in str(said.value)
    assert not mark.exists() and "runs.evil" not in sys.modules


COMMANDS = {
    "report": [],
    "imagine": ["--out", "dream.mp4"],
    "play": ["--port", "0"],
    "validate": [],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("place", "value"), [("model.world_model", SYSTEM), ("data.task", "runs.evil:make")])
def test_no_command_that_looks_lets_it_act(
    folder: RunFolder, mark: Path, command: str, place: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    altered(folder, (place, value))
    with pytest.raises(SystemExit):
        run([command, "--run", str(folder.path), *COMMANDS[command]])
    said = capsys.readouterr().err
    assert "import" in said and "--trust-code" in said and said.count("\n") == 1
    assert not mark.exists()


def config(text: str) -> Callable[[RunFolder], Any]:
    return lambda folder: folder.config.write_text(folder.config.read_text() + text)


BOMB = "bomb:\n" + "".join(f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9 if i else ['x'])}]\n" for i in range(30))
MERGED = "bomb:\n- &a0 {x: 1}\n" + "".join(f"- &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 30))
FILES: list[tuple[str, list[str], Callable[[RunFolder], Any], str]] = [
    ("a tag that makes an object", ["report"], config("x: !!python/object/apply:os.system [true]\n"), "is no YAML"),
    ("a bomb of aliases", ["report"], config(BOMB), "unfolds into more than"),
    ("a bomb of merged keys", ["validate"], config(MERGED), "unfolds into more than"),
    ("one that holds itself", ["report"], config("x: &x [*x]\n"), "unfolds into more than"),
    ("brackets without end", ["validate"], config("x: " + "[" * 5000), "is "),
    ("a binary file", ["report"], lambda folder: folder.config.write_bytes(os.urandom(999)), "is no YAML"),
    ("a pipe", ["report"], lambda folder: (folder.config.unlink(), os.mkfifo(folder.config)), "there is no"),
    ("a config within the config", ["validate"], config("config: [runs/evil.yaml]\n"), "no option config"),
    ("another checkpoint", ["validate"], config("checkpoint: ../secret\n"), "no option checkpoint"),
    (
        "evaluations in another's file",
        ["validate"],
        lambda folder: folder.validations.symlink_to(folder.path.parents[1] / "acted"),
        "leads out of the run's folder",
    ),
    (
        "films in another's folder",
        ["validate"],
        lambda folder: (shutil.rmtree(folder.videos), folder.videos.symlink_to(folder.path.parents[1])),
        "leads out of the run's folder",
    ),
    (
        "what is exported",
        ["export", "--out", "small"],
        lambda folder: (folder.evaluations.unlink(), folder.evaluations.symlink_to("/etc/hostname")),
        "leads out of the run's folder",
    ),
]


@pytest.mark.parametrize(("command", "change", "message"), [x[1:] for x in FILES], ids=[x[0] for x in FILES])
def test_what_else_a_run_holds_does_not_act(
    folder: RunFolder,
    mark: Path,
    command: list[str],
    change: Callable[[RunFolder], Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(folder)
    before = sorted(mark.parent.iterdir())
    with pytest.raises(SystemExit) as end:
        run([*command, "--run", str(folder.path)])
    said = capsys.readouterr().err
    assert end.value.code == 2 and message in said and said.count("\n") == 1
    assert not mark.exists() and set(mark.parent.iterdir()) <= {*before, mark.parent / "small"}


def test_text_stays_text_and_temporary_links_are_not_followed(folder: RunFolder, mark: Path) -> None:
    say(folder, policy="<script>alert(1)</script> $\\frac{$", starts="\x1b]0;x\x07")
    (folder.path / ".report.html.tmp").symlink_to(mark)
    (folder.path / ".calibration.json.tmp").symlink_to(mark)
    altered(folder, ("data.task", "PointReach\x1b[31m<b>"))
    with pytest.raises(UserError, match=r"PointReach\\x1b\[31m<b>"):
        load_run(folder.path)
    altered(folder, ("data.task", "worldmodel.experience.toy:PointReach"))
    (folder.videos / "episode_0000099_<img src=x>.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")
    (folder.videos / "episode_<b>.mp4").touch()
    run(["report", "--run", str(folder.path), "--episodes", "4", "--horizon", "4"])
    page = (folder.path / "report.html").read_text()
    assert "<script" not in page and "<b>" not in page and "<img src=x" not in page and "&lt;script" in page
    assert not mark.exists()


def test_loggers_of_a_stranger_write_nothing(folder: RunFolder, mark: Path) -> None:
    logger = {"class_path": "lightning.fabric.loggers.CSVLogger", "init_args": {"root_dir": str(mark)}}
    altered(folder, ("fabric.loggers", [logger]))
    run(["validate", "--run", str(folder.path), "--schedule.evaluation_episodes", "1"])
    assert not mark.exists() and len(folder.read_validations()) == 1


def test_ones_own_code_runs_when_it_is_trusted(
    folder: RunFolder, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered(folder, ("data.task", "runs.evil:Own"), ("model.world_model.encoder.class_path", "runs.evil.Encoder"))
    agent, data = load_run(folder.path, trust_code=True)
    data.close()
    assert type(agent.world_model.encoder).__module__ == "runs.evil" and mark.exists()
    run(["validate", "--run", str(folder.path), "--trust-code", "--schedule.evaluation_episodes", "1"])
    run(["imagine", "--run", str(folder.path), "--trust-code", "--out", "dream.png", "--horizon", "2"])
    assert "actor: return" in capsys.readouterr().out and Path("dream.png").exists()


@pytest.mark.parametrize("place", ["model.world_model", "model.actor_critic", "model.world_model.init_args.decoder"])
@pytest.mark.parametrize("path", ["os.system", "runs.evil.make"])
def test_ones_own_settings_are_of_the_right_kind_before_they_are_called(mark: Path, place: str, path: str) -> None:
    (mark.parent / "runs" / "evil.py").write_text("def make(*_) -> int: ...")
    *above, last = place.split(".")
    tree: Any = {last: {"class_path": path}}
    for name in reversed(above):
        tree = {name: tree}
    Path("own.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=rf"{path} is no |expects a function|to be a function"):
        fit(["--config", "own.yaml", "--run", "runs/mine"])
    assert not mark.exists()
