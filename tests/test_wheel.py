"""What is installed is all that the commands need: the wheel, unpacked elsewhere, trains and looks inside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHORT = """
schedule: {rounds: 2, prefill: 40, steps: 8, updates: 2, evaluation_episodes: 1}
data: {num_envs: 1, batch: 2, length: 8}
model:
  world_model: {init_args: {deter: 16, width: 16, transition: {init_args: {members: 2}}}}
  actor_critic: {init_args: {width: 16, horizon: 2, starts: 4}}
"""
# one process, so that torch is loaded once
COMMANDS = """
import pathlib, sys, worldmodel
from worldmodel.training.cli import run
assert pathlib.Path(worldmodel.__file__).is_relative_to(sys.argv[1]), worldmodel.__file__
fit = ["--config", "task/point_reach", "--config", "size/laptop", "--config", "short.yaml", "--run", "run"]
run(["fit", *fit])
run(["validate", "--run", "run", "--policy", "policy/random", "--schedule.evaluation_episodes", "1"])
run(["imagine", "--run", "run", "--out", "dream.png", "--horizon", "4", "--sequences", "1"])
run(["report", "--run", "run", "--episodes", "4", "--horizon", "3"])
run(["export", "--run", "run", "--out", "small"])
"""


def wheel(folder: Path) -> Path:
    """Built as ``pip wheel .`` builds it, from a copy, without pip or a network."""
    source = folder / "source"
    for name in ("worldmodel", "encoders", "configs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_works_elsewhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel(tmp_path)) as archive:
        archive.extractall(site)
    shipped = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    assert {path.relative_to(site / "worldmodel/configs") for path in site.rglob("*.yaml")} == shipped
    code = {path.relative_to(ROOT) for name in ("worldmodel", "encoders") for path in (ROOT / name).rglob("*.py")}
    assert {path.relative_to(site) for path in site.rglob("*.py")} == code
    (tmp_path / "short.yaml").write_text(SHORT)
    surroundings = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", COMMANDS, str(site)]
    done = subprocess.run(words, cwd=tmp_path, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("run/config.yaml", "run/checkpoints/best.ckpt", "dream.png", "run/report.html", "small/config.yaml"):
        assert (tmp_path / name).stat().st_size > 0
