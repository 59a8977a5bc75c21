"""What a command line says before torch is loaded."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.training.conftest import TINY, words
from worldmodel.errors import UserError
from worldmodel.experience.suite import suite_tasks
from worldmodel.experience.tasks import suite_names
from worldmodel.training import early
from worldmodel.training.cli import COMMANDS, run
from worldmodel.training.configs import merged
from worldmodel.training.settings import training_parser


def settings(*given: str) -> dict[str, Any]:
    words = early.expand(given)
    assert words[::2] == ["--config"] * (len(words) // 2)
    return merged(*words[1::2])


@pytest.mark.parametrize(
    ("given", "configs"),
    [
        (["--task", "walker_walk", "--size=12m"], ["task/walker_walk", "size/12m"]),
        (["--transition", "independent", "--encoder", "conv"], ["transition/independent", "encoder/conv"]),
        (["--task", "task/walker_walk", "--config", str(TINY)], ["task/walker_walk", str(TINY)]),
    ],
)
def test_kinds_by_name(given: list[str], configs: list[str]) -> None:
    assert settings(*given) == merged(*configs)


def test_other_options_stay() -> None:
    rest = ["--policy", "cem", "--schedule.rounds", "3", "--run=x", "--model.compile"]
    assert early.expand(rest) == rest


@pytest.mark.parametrize(
    ("given", "repeat"),
    [
        (["--task", "worldmodel.experience.toy:PointReach", "--size", "laptop"], 1),
        (["--size", "laptop", "--task", "CartPole-v1"], 1),
        (["--task", "dog_run", "--transition", "single"], 2),
        (["--task", "Hopper-v5", "--config", "data: {action_repeat: 3}"], 3),
    ],
)
def test_a_task_of_ones_own(given: list[str], repeat: int) -> None:
    data = settings(*given)["data"]
    assert data["task"] in given and data["action_repeat"] == repeat


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["fit", "--task", "walker_wlak"], "unknown task 'walker_wlak': did you mean walker_walk"),
        (["fit", "--task", "ALE/Pong-v5"], "registered by ale_py, which is not installed: pip install ale-py"),
        (["fit", "--task", "MiniGrid-Empty-5x5-v0"], "pip install minigrid"),
        (["fit", "--task", "no_module_of_mine:make"], "no module 'no_module_of_mine'"),
        (["fit", "--task", "xyzxyz"], "`worldmodel tasks` lists what there is"),
        (["fit", "--size", "13m"], "did you mean size/12m?"),
        (["fit", "--encoder"], "--encoder wants a name: conv, deterministic"),
        (["fit", "--config", "task/walker_wlak"], "did you mean task/walker_walk or"),
        (["fit", "--tsak", "walker_walk"], "no option tsak: did you mean task?"),
        (["fit", "--config", "base", "--data.bach=3"], "no option data.bach: did you mean data.batch?"),
        (["fit", "--config", "base", "--data.task", "Hoper-v5"], "did you mean Hopper-v5"),
        (["fit", "--run", "no/run"], "no/run holds no run: begin one with"),
        (["validate", "--run", "no/run", "--policy", "cme"], "did you mean policy/cem?"),
        (["report", "--run", "no/run"], "no/run holds no run: there is no no/run/config.yaml"),
        (["play", "--prot", "1"], "no option prot: did you mean port?"),
        (["imagine", "--policy", "cme"], "did you mean policy/cem?"),
    ],
)
def test_typos(complaint: Any, monkeypatch: pytest.MonkeyPatch, given: list[str], message: str) -> None:
    monkeypatch.setitem(sys.modules, "worldmodel.training.fit", None)  # which would load torch
    monkeypatch.setattr(importlib.util, "find_spec", _without(importlib.util.find_spec))
    assert message in complaint(given)


def _without(find: Any) -> Any:
    return lambda name, *more: None if name in ("ale_py", "minigrid") else find(name, *more)


def test_what_is_right_is_let_through() -> None:
    parser = training_parser("fit", "")
    names = [s for action in parser._actions for s in action.option_strings if s.startswith("--")]
    assert len(names) > 60 and "--data.batch" in names
    early.check(
        "fit",
        ["--config", "base", *(f"{name}=1" for name in names if name not in ("--config", "--policy", "--data.task"))],
    )
    early.check("fit", ["--config", "base", "--model.world_model.init_args.deter", "3", "--fabric.loggers+=x"])
    for command in COMMANDS:
        early.check(command, ["--help"])
        early.check(command, ["--trust-code"])
        assert early._known(command) >= {"run", "checkpoint"}


def test_the_suite_is_read_from_its_source() -> None:
    assert set(suite_names()) == set(suite_tasks())


def test_torch_is_not_loaded_for_it(tmp_path: Path) -> None:
    code = "import sys, worldmodel.training.cli as cli, worldmodel.training.early as early\n"
    code += "early.announce(early.expand(['--task', 'Hopper-v5', '--size', '12m']))\ncli.command(['tasks'])\n"
    code += "print(sorted({'torch', 'jsonargparse', 'dm_control', 'mujoco'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("worldmodel ") and last == "[]"
    for told in ("task      Hopper-v5, 16 environments", "runs/hopper-v5-1, new", "settings  size/12m\n", "125,000"):
        assert told in done.stdout, told
    for told in ("walker_walk", "dog_run", "Hopper-v5", "ALE/Pong-v5", "extras"):
        assert told in done.stdout, told


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("walker_walk", "walker_walk-1"), ("ALE/Pong-v5", "pong-v5-1"), ("mytask:make", "mytask-1"),
        ("worldmodel.experience.toy:PointReach", "pointreach-1"), ("ale_py:ALE/Pong-v5", "pong-v5-1"),
    ],
)  # fmt: skip
def test_names_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert early.free_folder(task) == f"runs/{name}" and (tmp_path / "runs" / name).is_dir()


def test_loggers_write_into_the_runs_folder(tmp_path: Path) -> None:
    run(words(tmp_path / "run", "--schedule.rounds", "1", "--fabric.loggers+=lightning.fabric.loggers.CSVLogger"))
    assert list((tmp_path / "run").glob("lightning_logs/version_*/metrics.csv"))
    wandb = "--fabric.loggers+=lightning.pytorch.loggers.WandbLogger"
    given = ["--run", "x", wandb, "--fabric.loggers.offline", "true"]
    assert early._logged(given) == [*given[:3], "--fabric.loggers.save_dir", "x", *given[3:]]
    chosen = [*given, "--fabric.loggers.save_dir", "y"]
    assert early._logged(chosen) == chosen


def test_a_package_that_is_missing_is_named(complaint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> None:
        raise ModuleNotFoundError("no", name="tensorboard")

    monkeypatch.setattr(early, "check", absent)
    assert "tensorboard is not installed: pip install tensorboard" in complaint(["report", "--run", "x"])


README = (Path(__file__).parents[2] / "README.md").read_text()
LINES = re.sub(r"\\\n\s*", "", "\n".join(re.findall(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)))
SAID = re.findall(r"^worldmodel (fit|validate|tasks|report|imagine|play|export)( .*)?$", LINES, re.MULTILINE)


@pytest.mark.parametrize(("command", "words"), SAID)
def test_the_commands_of_the_readme(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, words: str) -> None:
    """Their options, files and tasks are there; what it takes to run them is for the other tests."""
    monkeypatch.setattr(early, "_check_run", lambda *_: None)
    monkeypatch.setattr("worldmodel.experience.tasks.register", lambda task: "/" in task or "-v" in task)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mytask.py").touch()
    if command != "tasks":
        early.check(command, early.expand(shlex.split(words, comments=True)))


def test_there_are_commands_in_the_readme() -> None:
    assert len(SAID) > 12 and {command for command, _ in SAID} >= {"fit", "validate", "report", "play", "export"}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(["--version"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("worldmodel 0.")


def test_a_missing_task_is_a_user_error() -> None:
    with pytest.raises(UserError, match="did you mean"):
        early.expand(["--task", "walker_wlak"])
    assert yaml.safe_load(early.expand(["--task", "CartPole-v1"])[1])["data"]["action_repeat"] == 1
