"""``worldmodel tasks``: what there is to train on, and what of it is installed. Loads no simulator and no torch."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from textwrap import fill

import gymnasium

from worldmodel.experience.tasks import REGISTRARS, suite_names
from worldmodel.training.configs import merged, names

_PARTS = {  # of Gymnasium, by the module of its entry points: what each is drawn or simulated with, and how to get it
    "classic_control": ("classic control", "pygame", "gymnasium[classic-control]"),
    "toy_text": ("toy text", "pygame", "gymnasium[toy-text]"),
    "box2d": ("Box2D", "Box2D", "gymnasium[box2d]"),
    "mujoco": ("MuJoCo", "imageio", "gymnasium[mujoco]"),
}
_EXTRAS = {
    "environments": ("ale_py", "Atari, MiniGrid, and what Gymnasium's Box2D and MuJoCo need"),
    "data": ("h5py", "data of others, to import and to export"),
    "suite": ("ray", "several tasks and seeds at once, on Ray"),
    "notebook": ("anywidget", "the player in a notebook"),
}


def tasks() -> None:
    """List what ``--task`` takes."""
    shipped = {name: str(merged(name)["data"]["task"]) for name in names("task")}
    tuned = set(shipped.values())
    others = [name for name in suite_names() if name not in tuned and name != "cup_catch"]
    print("worldmodel fit --task NAME takes")
    _print("what is shipped, with settings of its own:", [name.removeprefix("task/") for name in shipped])
    state = "" if others else " (not installed: pip install dm-control)"
    _print(f"dm_control's other tasks, with no settings of their own{state}:", others)
    for (text, module, package), ids in _gymnasium().items():
        _print(f"Gymnasium's {text}, rendered{_state(module, package)}:", ids)
    for registrar in REGISTRARS:
        ids = sorted(name for name in gymnasium.registry if registrar.ids.match(name))
        _print(f"{registrar.package}, as {registrar.example}{_state(registrar.module, registrar.package)}", ids[:12])
    print("\nand module:ID, for an id that another module registers, and module:callable, for what it makes")
    print("\nextras of worldmodel:")
    for extra, (module, what) in _EXTRAS.items():
        print(f"  {extra:14s}{what}{_state(module, f'worldmodel[{extra}]')}")


def _gymnasium() -> dict[tuple[str, str, str], list[str]]:
    """The newest version of each of Gymnasium's own tasks, by part."""
    newest: dict[tuple[str, str], str] = {}
    for name, spec in gymnasium.registry.items():
        where = str(spec.entry_point).split(".")
        if where[:2] == ["gymnasium", "envs"] and where[2].partition(":")[0] in _PARTS:
            newest[where[2].partition(":")[0], spec.name] = name  # registered in the order of versions
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for (part, _), name in newest.items():
        found[_PARTS[part]].append(name)
    return found


def _state(module: str, package: str) -> str:
    return "" if importlib.util.find_spec(module) else f" (not installed: pip install '{package}')"


def _print(title: str, listed: list[str]) -> None:
    print(f"\n{title}")
    if listed:
        print(fill(", ".join(listed), 110, initial_indent="  ", subsequent_indent="  "))
