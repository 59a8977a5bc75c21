"""Each mistake through the real command line: one clear line, exit code 2, and nothing lost."""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.training.conftest import CONFIGS, files, words
from worldmodel.experience import rendering
from worldmodel.model.world_model import WorldModel
from worldmodel.training.checkpoint import load_checkpoint
from worldmodel.training.cli import COMMANDS, TRAINING, run
from worldmodel.training.configs import names

BROKEN = "tests.experience.broken"
PLANNER = "--model.evaluate_with.init_args.planner"
DISCRETE = ["--data.task", "worldmodel.experience.toy:DiscretePointReach"]
WORLD, CONTROL = "--model.world_model.init_args", "--model.actor_critic.init_args"


def policy(name: str) -> list[str]:
    return ["--policy", str(CONFIGS / f"policy/{name}.yaml")]


DRIVEN = policy("mppi")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--data.task", "cartpole_swingpu"], "unknown task 'cartpole_swingpu': did you mean cartpole_swingup"),
        (["--data.bach", "3"], "no option data.bach: did you mean data.batch?"),
        (["--schedule.roundz", "3"], "did you mean schedule.rounds"),
        (["--xyzxyz.q", "3"], "no option xyzxyz.q: --help lists them"),
        ([f"{WORLD}.detr", "3"], "model.world_model has no option detr: did you mean deter?"),
        ([f"{WORLD}.encoder.init_args.sze", "3"], "model.world_model.encoder has no option sze: did you mean size?"),
        ([f"{WORLD}.encoder", "encoders.conv.PatchEncodr"], "encoders.conv has no PatchEncodr: did you mean Patch"),
        ([f"{WORLD}.encoder", "worldmodel.model.decoder.PatchDecoder"], "PatchDecoder is no Encoder"),
        (["--model.evaluate_with", "worldmodel.control.planners.CEM"], "CEM is no Controller"),
        (["--data.batch", "many"], "data.batch: expected int, got many"),
        ([f"{WORLD}.deter", "many"], "model.world_model.deter: expected int, got many"),
        (["--data.quality", "best"], "expected one of 'fast', 'reference', got best"),
        (["--fabric.precision", "7"], "fabric.precision: expected"),
        (["--fabric.accelerator", "gpuu"], "invalid accelerator name"),
        (["--config", "no/such.yaml"], "no/such.yaml"),
        (["--data.batch", "0"], "data.batch: it is 0 and must be at least 1"),
        (["--data.length", "1"], "data.length: it is 1 and must be at least 2"),
        (["--schedule.updates", "0"], "schedule.updates: it is 0 and must be at least 1"),
        (["--schedule.max_minutes", "0"], "schedule.max_minutes: it is 0.0 and must be above 0"),
        (["--schedule.rounds", "null"], "nothing ends this run: give schedule.rounds or schedule.max_minutes"),
        (["--schedule.prefill", "2000"], "a replay of capacity 1000 never holds the 2000 records to begin with"),
        (["--seed", "-1"], "seed: it is -1 and must be at least 0 and at most 4294967295"),
        ([f"{WORLD}.transition.init_args.members", "0"], "transition.members: it is 0 and must be at least 1"),
        ([f"{WORLD}.latents.init_args.groups", "0"], "latents.groups: it is 0 and must be at least 1"),
        ([f"{WORLD}.encoder.init_args.size", "13"], "size 13 must be a multiple of twice the patch 4"),
        ([f"{WORLD}.decode_fraction", "2"], "decode_fraction: it is 2.0 and must be above 0 and at most 1"),
        (["--model.weights", "{rewrd: 2}"], "no loss is called rewrd"),
        (["--data.task", f"{BROKEN}:Unseen"], "no picture, and cannot be drawn: its render_mode is None"),
        (["--data.task", f"{BROKEN}:NanReward"], "gave a reward that is not finite at step 1"),
        (["--data.task", f"{BROKEN}:NanState"], "gave a observation that is not finite"),
        (["--data.task", "os:abort"], "task 'os:abort': abort makes no gymnasium.Env"),
        (["--data.task", "pathlib:Path"], "task 'pathlib:Path': Path makes no gymnasium.Env"),
        (["--checkpoint", "no/such.ckpt"], "there is no checkpoint no/such.ckpt"),
        (["--policy", "no/such.yaml"], "there is no policy file no/such.yaml: configs/policy holds"),
        (["--policy"], "--policy wants a file: configs/policy holds"),
        (["--polcy", "no/such.yaml"], "no option polcy: did you mean policy"),
        ([*DRIVEN, f"{PLANNER}", "worldmodel.control.planners.mppi.MPPII"], "mppi has no MPPII: did you mean MPPI?"),
        ([*DRIVEN, f"{PLANNER}", "worldmodel.control.planners.mpi.MPPI"], "planners has no mpi: did you mean mppi?"),
        ([*DRIVEN, f"{PLANNER}.init_args.horizn", "3"], "model.evaluate_with.planner has no option horizn"),
        ([*DRIVEN, f"{PLANNER}.init_args.horizon", "many"], "model.evaluate_with.planner.horizon: expected int"),
        ([*DRIVEN, f"{PLANNER}.init_args.horizon", "0"], "worldmodel: a planner's horizon must be at least 1, got 0"),
        ([*DRIVEN, "--model.evaluate_with.init_args.every", "11"], "a plan of 10 steps cannot be made anew every 11"),
        ([*policy("ilqr"), *DISCRETE], "ILQR plans continuous actions only"),
        ([*policy("gradient"), *DISCRETE], "GradientPlanner plans continuous actions only"),
        ([*policy("planet"), *policy("actor")], "this run has no actor: give model.evaluate_with"),
        (
            [*policy("planet"), "--model.weights", "{actor: 2}"],
            "no loss is called actor: weights are of reconstruction,",
        ),
    ],
)
def test_settings(tmp_path: Path, complaint: Any, given: list[str], message: str) -> None:
    assert message in complaint(words(tmp_path / "run", *given))


def test_an_environment_that_fails_leaves_its_traceback_in_the_run(tmp_path: Path, complaint: Any) -> None:
    said = complaint(words(tmp_path / "run", "--data.task", f"{BROKEN}:Raises"))
    kept = tmp_path / "run" / "environment_error.txt"
    assert "episode 1, step 1: step raised ZeroDivisionError: a bug of its own" in said and str(kept) in said
    assert "Traceback" in kept.read_text() and "broken.py" in kept.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {bach: 3}", "no option data.bach: did you mean data.batch?"),
        ("dat: {batch: 3}", "no option dat.batch: did you mean data.batch?"),
        ("data: {batch: many}", "data.batch: expected int, got many"),
        ("model: {world_model: {init_args: {detr: 3}}}", "model.world_model has no option detr"),
        ("policy: configs/policy/mppi.yaml", "policy is for the command line: in a file, set model.evaluate_with"),
        ("data: {batch: [3", "mine.yaml is no YAML"),
        ("- 3", "config"),
    ],
)
def test_config_files(tmp_path: Path, complaint: Any, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert message in complaint(words(tmp_path / "run", "--config", str(tmp_path / "mine.yaml")))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "say what to do: fit, validate, report, imagine, play, export, import, export-data, tasks, or --help"),
        (["fitt"], "no command fitt: did you mean fit?"),
        (["imagin", "--run", "x"], "no command imagin: did you mean imagine?"),
        (["xyz"], "no command xyz: there are fit, validate, report, imagine, play, export, import, export-data, tasks"),
        (["fit"], "say what to run"),
        (["validate", "--run", "{empty}"], "holds no run"),
        (["validate", "--config", str(CONFIGS / "base.yaml"), "--run", "{empty}"], "there is no checkpoint"),
    ],
)
def test_commands(tmp_path: Path, complaint: Any, given: list[str], message: str) -> None:
    assert message in complaint([word.format(empty=tmp_path) for word in given])


def test_help_explains_what_is_set_first_and_then_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    page = helped(["fit", "--help"], capsys)
    text = " ".join(page.split())
    for option in (
        "--run RUN the run's folder",
        "--policy POLICY a config of who acts",
        "--schedule.updates UPDATES updates in",
        "--schedule.console_every CONSOLE_EVERY rounds",
    ):
        assert option in text
    assert "--optimizer." not in text and "--data.capacity" not in text
    assert all(name.rpartition("/")[2] in text for name in names())
    every = helped(["fit", "--help-all"], capsys)
    assert "--optimizer.max_skipped" in every and "--data.capacity" in every and "--schedule.rounds" in every
    assert len(page.splitlines()) < len(every.splitlines())
    assert "free_nats FREE_NATS KL below which" in " ".join(helped(["fit", "--model.world_model.help"], capsys).split())


def helped(given: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The page that a command prints instead of running."""
    with pytest.raises(SystemExit) as end:
        run(given)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_first_page_fits_a_screen_and_loads_nothing(tmp_path: Path) -> None:
    code = "import sys, worldmodel.__main__ as m; sys.argv[1:] = ['--help']\ntry: m.main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'jsonargparse', 'lightning', 'mujoco', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *page, loaded = done.stdout.splitlines()
    assert loaded == "[]" and 24 <= len(page) <= 40 and max(map(len, page)) <= 120
    assert all(f"  {name} " in done.stdout for name in (*TRAINING, *COMMANDS))


def test_truncated_checkpoint(finished: Path, complaint: Any) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    before = files(finished)
    error = complaint(["fit", "--run", str(finished), "--schedule.rounds", "5"])
    assert "is damaged" in error and "best.ckpt may serve" in error
    after = files(finished)
    assert after.pop("config.yaml") and before.pop("config.yaml")
    assert after == before
    best = str(finished / "checkpoints" / "best.ckpt")
    more = ["fit", "--run", str(finished), "--schedule.rounds", "5", "--checkpoint", best]
    assert "has gone on since: --rewind true drops what it has collected" in complaint(more)
    assert files(finished) == after | {"config.yaml": (finished / "config.yaml").read_bytes()}
    run([*more, "--rewind", "true"])


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("command", ["fit", "validate"])
@pytest.mark.parametrize("named", [False, True])
def test_hostile_checkpoint(finished: Path, tmp_path: Path, complaint: Any, command: str, named: bool) -> None:
    last = finished / "checkpoints" / "last.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": Hostile(tmp_path / "ran")}, last)
    (finished / "checkpoints" / "best.ckpt").unlink()
    more = ["--checkpoint", str(last)] if named else []
    assert "damaged or not one of ours" in complaint([command, "--run", str(finished), *more])
    assert not (tmp_path / "ran").exists()


def test_checkpoint_of_another_program(finished: Path, complaint: Any) -> None:
    torch.save({"weights": torch.zeros(2)}, finished / "checkpoints" / "last.ckpt")
    assert "not one of ours" in complaint(["fit", "--run", str(finished)])


@pytest.mark.parametrize("command", ["fit", "validate"])
def test_checkpoint_of_another_transition(finished: Path, tmp_path: Path, complaint: Any, command: str) -> None:
    def fails(folder: str, *more: str) -> str:
        checkpoint = ["--checkpoint", str(finished / "checkpoints" / "last.ckpt"), "--schedule.rounds", "9"]
        return complaint([command, *words(tmp_path / folder)[1:], *checkpoint, *more])

    error = fails("larger", f"{WORLD}.transition.init_args.members", "5")
    assert "does not fit the configuration: world_model.rssm.transition.heads.weight is (48, 16), not (80, 16)" in error
    error = fails("another", f"{WORLD}.transition", "worldmodel.model.independent.IndependentEnsemble")
    assert "is missing; world_model.rssm.transition.trunk.linear.weight is not in the configuration (" in error


def test_another_policy_is_another_configuration(finished: Path, complaint: Any) -> None:
    error = complaint(["fit", "--run", str(finished), *DRIVEN])
    assert "another configuration (model.collect_with.class_path is None there" in error


def test_run_of_another_configuration(finished: Path, complaint: Any) -> None:
    before = files(finished)
    error = complaint(words(finished, "--data.batch", "5"))
    assert "another configuration (data.batch is 4 there, 5 here; 1 settings differ)" in error
    assert files(finished) == before


def test_replay_file_cut_short(finished: Path, complaint: Any) -> None:
    replay = finished / "replay" / "rank_0"
    first = min(replay.iterdir())
    os.truncate(first, 100)
    with pytest.warns(UserWarning, match=f"skipping the damaged replay file .*{first.name}"):
        run(["fit", "--run", str(finished), "--schedule.rounds", "5"])
    for path in replay.iterdir():
        path.unlink()
    assert "none of its records" in complaint(["fit", "--run", str(finished), "--schedule.rounds", "6"])


def poison(monkeypatch: pytest.MonkeyPatch, calls: range) -> None:
    """Let these calls of the world model's loss come to NaN."""
    true, count = WorldModel.loss, iter(range(10**9))

    def loss(self: WorldModel, batch: Any) -> Any:
        losses, state, metrics = true(self, batch)
        if next(count) in calls:
            losses["reward"] = losses["reward"] * float("nan")
        return losses, state, metrics

    monkeypatch.setattr(WorldModel, "loss", loss)


def test_a_loss_that_is_not_finite_is_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, range(5, 7))
    run(words(tmp_path))
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["skipped"] for row in rows if row["skipped"]] == ["0", "2", "2", "2"]
    assert rows[-1]["updates"] == "14"
    assert all(x.isfinite().all() for x in load_checkpoint(tmp_path / "checkpoints/last.ckpt")["state_dict"].values())


def test_losses_that_stay_not_finite_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: Any
) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    with monkeypatch.context() as patch:
        poison(patch, range(6, 10**9))
        assert "not finite 8 times in a row after 6 updates" in complaint(
            words(tmp_path, "--optimizer.max_skipped", "8")
        )
    assert load_checkpoint(last)["updates"] == 4  # of the last round that ended well
    run(words(tmp_path, "--optimizer.max_skipped", "8"))
    assert load_checkpoint(last)["updates"] == 16


def test_a_huge_learning_rate(tmp_path: Path, complaint: Any) -> None:
    given = ["--optimizer.learning_rate", "1e30", "--optimizer.actor_learning_rate", "1e30", "--optimizer.warmup", "0"]
    assert "learning_rate: it is 1e+30 and must be at least 0 and at most 1" in complaint(words(tmp_path, *given))
    assert not (tmp_path / "checkpoints").exists()


def test_no_gl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: Any) -> None:
    def missing(*_: Any) -> None:
        raise ImportError("libEGL.so.1: cannot open shared object file")

    monkeypatch.setitem(rendering._RENDERERS, "fast", missing)
    error = complaint(words(tmp_path, "--data.task", "cartpole_balance", "--data.quality", "fast"))
    assert "libEGL.so.1" in error and "apt-get install libegl1" in error


def test_full_disk(finished: Path, complaint: Any) -> None:
    before = files(finished / "checkpoints")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = min(len(content) for content in before.values())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))  # writing beyond fails, as on a full disk
    try:
        error = complaint(["fit", "--run", str(finished), "--schedule.rounds", "6"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "is the disk full? The old one is kept" in error
    assert files(finished / "checkpoints") == before
    run(["fit", "--run", str(finished), "--schedule.rounds", "6"])
    assert yaml.safe_load((finished / "config.yaml").read_text())["schedule"]["rounds"] == 6
