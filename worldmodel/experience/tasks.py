"""Which tasks there are and which package registers one, found without loading a simulator. Free of torch."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import gymnasium

from worldmodel.errors import UserError


class Registrar(NamedTuple):
    """A package whose import registers Gymnasium ids."""

    ids: re.Pattern[str]
    module: str
    package: str  # what pip installs
    example: str  # one of the ids


_ROBOTICS = r"Fetch|HandManipulate|HandReach|PointMaze|AntMaze|Adroit|FrankaKitchen"
_HIGHWAY = r"(highway|merge|roundabout|parking|intersection|racetrack)-"
REGISTRARS = (
    Registrar(re.compile(r"ALE/|\w+NoFrameskip-v4"), "ale_py", "ale-py", "ALE/Pong-v5"),
    Registrar(re.compile(r"MiniGrid-|BabyAI-"), "minigrid", "minigrid", "MiniGrid-Empty-5x5-v0"),
    Registrar(re.compile(r"MiniWorld-"), "miniworld", "miniworld", "MiniWorld-Hallway-v0"),
    Registrar(re.compile(_ROBOTICS), "gymnasium_robotics", "gymnasium-robotics", "FetchReach-v4"),
    Registrar(re.compile(_HIGHWAY), "highway_env", "highway-env", "highway-v0"),
    Registrar(re.compile(r"Panda\w+-v"), "panda_gym", "panda-gym", "PandaReach-v3"),
)
_ADDED = re.compile(r"^@SUITE\.add\([^)]*\)\s*^def (\w+)\(", re.MULTILINE)


def suite_names() -> list[str]:
    """dm_control's tasks, read from its source, for its import takes a second and wants a GL library."""
    found = importlib.util.find_spec("dm_control")
    if found is None or found.origin is None:
        return []
    files = sorted((Path(found.origin).parent / "suite").glob("*.py"))
    names = [f"{file.stem}_{task}" for file in files for task in _ADDED.findall(file.read_text())]
    return [*names, "cup_catch"]


def from_here() -> None:
    """Let modules of the current folder be found, as with ``python -m``."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def register(task: str) -> bool:
    """Whether ``task`` is a Gymnasium id, after the package that registers it was imported.

    Raises:
        UserError: that package is not installed; says how to install it.
    """
    if task in gymnasium.registry:
        return True
    for registrar in REGISTRARS:
        if registrar.ids.match(task):
            if importlib.util.find_spec(registrar.module) is None:
                raise UserError(
                    f"task {task!r} is registered by {registrar.module}, which is not installed: "
                    f"pip install {registrar.package}"
                )
            module = importlib.import_module(registrar.module)
            if task not in gymnasium.registry and hasattr(module, "register_envs"):
                module.register_envs()
            return task in gymnasium.registry
    return False


def check(task: str) -> None:
    """Find that there is such a task, without making it.

    Raises:
        UserError: there is none; says what has a similar name, or what to install.
    """
    module, colon, _ = task.partition(":")
    if colon:
        from_here()
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            raise UserError(f"task {task!r}: no module {module.partition('.')[0]!r}; run in its folder or install it")
    elif not register(task) and task not in suite_names():
        raise unknown(task)


def unknown(task: str) -> UserError:
    """What to tell someone whose task is nowhere."""
    near = difflib.get_close_matches(task, [*suite_names(), *gymnasium.registry], n=3, cutoff=0.5)
    if near:
        return UserError(f"unknown task {task!r}: did you mean {' or '.join(near)}?")
    return UserError(
        f"unknown task {task!r}: `worldmodel tasks` lists what there is; an id of another package is given as "
        "module:ID, a factory as module:callable"
    )
