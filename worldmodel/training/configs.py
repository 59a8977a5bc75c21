"""Configurations: where those that are shipped lie, what they are called, and which lies over which. Free of torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from worldmodel.errors import UserError
from worldmodel.training.yaml_files import read_yaml

SHIPPED = (Path(__file__).parents[1] / "configs").resolve()  # in the repository a link to its own configs/
BASE = (SHIPPED / "base.yaml", SHIPPED / "size" / "laptop.yaml")  # one thing: what every run has, and its size
KINDS = ("size", "task", "encoder", "representation", "transition", "policy")  # each lies over those before it
_WORLD_MODEL = {"encoder", "latents", "transition", "decoder"}


def names(kind: str = "") -> list[str]:
    """What is shipped, such as ``task/walker_walk``; of one kind, such as ``task``, if that is given."""
    paths = sorted((SHIPPED / kind).rglob("*.yaml"), key=lambda path: (_kind(path), path.stem))
    return [path.relative_to(SHIPPED).with_suffix("").as_posix() for path in paths]


def find(name: str | Path, kind: str = "") -> Path:
    """The file that a name stands for: a path, or what is shipped (``task/walker_walk``, with or without ``.yaml``).

    Args:
        name: of the configuration.
        kind: the folder in which it is looked for as well, such as ``policy``.

    Raises:
        UserError: there is none; says what has a similar name.
    """
    if Path(name).is_file():
        return Path(name)
    known, wanted = names(), Path(name).as_posix().removeprefix("configs/").removesuffix(".yaml")
    for candidate in (wanted, f"{kind}/{wanted}"):
        if candidate in known:
            return SHIPPED / f"{candidate}.yaml"
    last = {other: other.rpartition("/")[2] for other in known if other.startswith(kind)}
    leaf = wanted.rpartition("/")[2]
    near = [other for other in last if last[other] == leaf]  # in another folder, or none was given
    near = near or difflib.get_close_matches(wanted, known, n=3, cutoff=0.75)
    near = near or [other for other in last if last[other] in difflib.get_close_matches(leaf, last.values())]
    hint = f"did you mean {' or '.join(near)}?" if near else f"configs/{kind} holds those that are shipped"
    raise UserError(f"there is no {kind or 'configuration'}{' file' * bool(kind)} {name}: {hint}")


def arrange(paths: Iterable[Path | str]) -> list[Path | str]:
    """Files in the order in which they are laid over one another.

    ``base`` comes first, named or not, unless one of the files describes a whole world model, as a run's
    ``config.yaml`` does. What is shipped is sorted by kind, so it may be named in any order. A file of one's own, or a
    text of settings instead of a path, keeps its place: it lies over what is named before it, and under what follows.
    """
    given = list(paths)
    ordered: list[Path | str] = []
    for shipped, group in groupby(given, key=_is_shipped):
        files = list(group)
        ordered += sorted(files, key=_kind) if shipped else files
    whole = [is_whole(path) for path in given]  # all are read, so one that cannot be is named here
    if any(whole) and BASE[0].resolve() not in map(_resolved, given):
        return ordered
    return [*BASE, *(path for path in ordered if _resolved(path) != BASE[0].resolve())]


def merged(*wanted: str | Path) -> dict[str, Any]:
    """The settings that these configurations come to, as plain data, without the defaults of what they leave out.

    Args:
        wanted: names, files, or texts of settings.
    """
    settings: dict[str, Any] = {}
    for path in arrange([name if is_text(name) else find(name) for name in wanted]):
        settings = merge(settings, read_yaml(path))
    return settings


def check_begins(run: str, begins: bool) -> None:
    """Find that a run is begun by a configuration, or gone on with.

    Raises:
        UserError: neither is; says how.
    """
    if begins:
        return
    if not run:
        raise UserError("say what to run: --task cartpole_balance begins a run, --run runs/NAME resumes one")
    if not (Path(run) / "config.yaml").exists():
        raise UserError(f"{run} holds no run: begin one with --task cartpole_balance --run {run}")


def is_text(name: str | Path) -> bool:
    """Whether what was given as a configuration is settings rather than the name of a file."""
    return isinstance(name, str) and any(mark in name for mark in "{:\n")


def merge(base: Any, over: Any) -> Any:
    """``over`` laid upon ``base``; another class drops the arguments of the one before."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    if "class_path" in over and over["class_path"] != base.get("class_path"):
        return over
    return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}


def _resolved(path: Path | str) -> Path | str:
    return path.resolve() if isinstance(path, Path) else path


def _is_shipped(path: Path | str) -> bool:
    return isinstance(path, Path) and path.resolve().is_relative_to(SHIPPED)


def _kind(path: Path | str) -> int:
    """The place of a shipped file's folder among the kinds; base is before all."""
    folder = Path(path).resolve().parent.name
    return KINDS.index(folder) + 1 if folder in KINDS else 0


def is_whole(path: Path | str) -> bool:
    """Whether a file of one's own needs no other below it: it says all of the world model."""
    if _is_shipped(path):
        return False
    held = read_yaml(path)
    for key in ("model", "world_model"):
        held = held.get(key) if isinstance(held, dict) else None
    parts = held.get("init_args") if isinstance(held, dict) and "class_path" in held else None
    return isinstance(parts, dict) and parts.keys() >= _WORLD_MODEL
