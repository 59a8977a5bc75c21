"""``make`` finds a Python that will do, or has uv fetch one, or says which to install. Every command is a stand-in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("sh", "rm", "mkdir", "mktemp", "touch", "cat", "chmod", "cp", "make")

# stands for an interpreter; one that --version would call $VERSION
PYTHON = """#!/bin/sh
echo "{name} $*" >> "$LOG"
case "$1 $2" in
"-c ") exit 0 ;;
"-c "*) exit {unsupported} ;;
"-m venv") mkdir -p "$3/bin" && cp "$STANDINS/venv_python" "$3/bin/python" ;;
"-m pip") {pip} ;;
esac
"""
FETCH_UV = 'case "$*" in *" uv") cp "$STANDINS/uv" "${0%/*}/uv" ;; esac'
UV = """#!/bin/sh
echo "uv $*" >> "$LOG"
case "$1" in
venv) {venv} ;;
esac
"""
MAKE_VENV = 'mkdir -p .venv/bin && cp "$STANDINS/venv_python" .venv/bin/python'


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(folder: Path, commands: dict[str, str], pip: str, uv: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """``make`` of what has to be there for every target, and the log of the commands that it gave."""
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("setup.cfg", "constraints.txt"):
        (folder / name).touch()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / tool).symlink_to(found)
    for name, text in commands.items():
        executable(folder / "bin" / name, text)
    executable(folder / "standins/venv_python", PYTHON.format(name="in-venv", unsupported=0, pip=pip))
    executable(folder / "standins/uv", UV.format(venv=uv))
    log = folder / "log"
    log.touch()
    surroundings = {"PATH": str(folder / "bin"), "LOG": str(log), "STANDINS": str(folder / "standins")}
    done = subprocess.run(
        ["make", ".venv/.ready"], cwd=folder, env=surroundings, capture_output=True, text=True, timeout=60
    )
    return done, log.read_text()


def python(name: str, supported: bool) -> dict[str, str]:
    return {name: PYTHON.format(name=name, unsupported=0 if supported else 1, pip="exit 1")}


NEWER = python("python3", supported=False)


@pytest.mark.parametrize(
    ("commands", "said", "given"),
    [
        (python("python3.12", True), "creating .venv with python3.12", "in-venv -m pip install --quiet -e .[dev]"),
        (python("python3.11", True) | NEWER, "creating .venv with python3.11", "python3.11 -m venv .venv"),
        (python("python3", True) | {"uv": UV.format(venv=MAKE_VENV)}, "creating .venv with python3", "uv pip install"),
        (NEWER, "uv fetches 3.12 for .venv", "uv venv --quiet --seed --python 3.12 .venv"),
        (NEWER | {"uv": UV.format(venv=MAKE_VENV)}, "uv fetches 3.12", "uv venv --quiet --seed --python 3.12 .venv"),
        (python("python3.14", False), "uv fetches 3.12 for .venv", "python3.14 -m venv"),
    ],
)
def test_some_python_is_found(tmp_path: Path, commands: dict[str, str], said: str, given: str) -> None:
    done, log = run(tmp_path, commands, FETCH_UV, MAKE_VENV)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout and given in log
    assert "pip install" in log.splitlines()[-1] and "-c constraints.txt" in log.splitlines()[-1]
    assert (tmp_path / ".venv/.ready").exists()


@pytest.mark.parametrize(
    ("commands", "pip", "uv", "reason"),
    [
        ({}, FETCH_UV, MAKE_VENV, "uv, which would fetch it, cannot be installed with pip"),
        (NEWER, "exit 1", MAKE_VENV, "uv, which would fetch it, cannot be installed with pip"),
        (NEWER, FETCH_UV, "echo no network >&2; exit 2", "uv could not fetch 3.12"),
    ],
)
def test_without_a_network_one_line_says_what_to_install(
    tmp_path: Path, commands: dict[str, str], pip: str, uv: str, reason: str
) -> None:
    done, _ = run(tmp_path, commands, pip, uv)
    line, *rest = done.stderr.splitlines()
    needed = "Python 3.12 or 3.11 is needed and neither runs here"
    assert done.returncode and line == f"{needed}; {reason}: install Python 3.12, then run make again"
    assert all(line.startswith("make: ***") for line in rest)
    assert not (tmp_path / ".venv/.ready").exists()
