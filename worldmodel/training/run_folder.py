"""The run folder: configuration, checkpoints, and tables that a resumed run continues."""

from __future__ import annotations

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import yaml

from worldmodel.errors import UserError
from worldmodel.training.checkpoint import write_atomically
from worldmodel.training.metrics import MetricsTable
from worldmodel.training.yaml_files import read_yaml

# settings that a resumed run may change: how long, what is kept of it, how it is watched
FREE = (
    *(f"schedule.{name}" for name in ("rounds", "max_minutes", "final_episodes", "checkpoint_every", "console_every")),
    *(f"schedule.{name}" for name in ("calibration_episodes", "evaluate_every", "evaluate_minutes")),
    "fabric.loggers",
)
FILM = re.compile(r"episode_(?P<updates>\d{1,12})(?:_(?P<policy>.+))?\.mp4")
COMMAND = ("config", "run", "policy", "checkpoint", "rewind", "pretrained")  # of a command, not of the run


class RunFolder:
    """Where a run keeps everything.

    Layout: ``config.yaml``, ``checkpoints/{last,best}.ckpt``, ``replay/rank_<r>/``, ``evaluations.jsonl``,
    ``validations.jsonl``, ``metrics.csv``, ``calibration.json``, ``videos/``, ``lock``.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config, self.evaluations = self.path / "config.yaml", self.path / "evaluations.jsonl"
        self.validations = self.path / "validations.jsonl"
        self.last, self.best = self.path / "checkpoints" / "last.ckpt", self.path / "checkpoints" / "best.ckpt"
        self.videos = self.path / "videos"
        self.metrics = MetricsTable(self.path / "metrics.csv")

    @property
    def weights(self) -> Path:
        """Whose weights are looked at, unless another checkpoint is named."""
        return self.best if self.best.exists() else self.last

    def check(self, config: dict[str, Any], defaults: dict[str, Any] | None = None) -> None:
        """Find that the folder is free for a run of ``config``, or is a run of the same.

        A setting that its ``config.yaml`` lacks has come since that run began, and is the same if it has its default.

        Raises:
            UserError: it is of another configuration; names the first setting that differs.
        """
        if not self.config.exists():
            return
        new, known = _flat(config), _flat(defaults or {})
        old = {key: known[key] for key in new if key in known} | _flat(read_yaml(self.config) or {})
        keys = sorted(key for key in old.keys() | new.keys() if not key.startswith((*FREE, *COMMAND)))
        different = [key for key in keys if old.get(key) != new.get(key)]
        if different:
            key = different[0]
            raise UserError(
                f"{self.path} is a run of another configuration ({key} is {old.get(key)!r} there, "
                f"{new.get(key)!r} here; {len(different)} settings differ): resume with --run {self.path} alone, "
                "or use another folder"
            )

    def claim(self, config: dict[str, Any]) -> None:
        """Take the folder for a run of ``config``, which ``check`` has let through."""
        text = yaml.safe_dump({k: v for k, v in config.items() if k not in COMMAND}, sort_keys=False)
        write_atomically(self.config, lambda temporary: temporary.write_text(text))

    def read_config(self) -> dict[str, Any]:
        """What ``config.yaml`` holds.

        Raises:
            UserError: it is not there, no YAML, or lacks what every run has.
        """
        if not self.config.is_file():
            raise UserError(f"{self.path} holds no run: there is no {self.config}")
        held = read_yaml(self.config)
        for name in ("data", "model"):
            if not isinstance(held, dict) or not isinstance(held.get(name), dict):
                raise UserError(f"{self.config} has no settings of {name}: it is not a run's, or was cut short")
        return held

    def add_evaluation(self, row: dict[str, Any]) -> None:
        """Append a line to ``evaluations.jsonl``, at once on the disk.

        Raises:
            UserError: the file cannot be written.
        """
        _append(self.inside(self.evaluations), row)

    def add_validation(self, row: dict[str, Any]) -> None:
        """Append a line to ``validations.jsonl``, which training neither reads nor writes.

        Raises:
            UserError: the file cannot be written.
        """
        _append(self.inside(self.validations), row)

    def read_evaluations(self) -> list[dict[str, Any]]:
        """The lines of ``evaluations.jsonl`` that say what they should; warns of others, but for a last one cut short.

        Raises:
            UserError: it is no file that can be read.
        """
        return _rows(self.evaluations)

    def read_validations(self) -> list[dict[str, Any]]:
        """The same of ``validations.jsonl``.

        Raises:
            UserError: it is no file that can be read.
        """
        return _rows(self.validations)

    def read_metrics(self) -> list[dict[str, float]]:
        """All whole lines of ``metrics.csv``: what was measured, by name; ``updates`` is always among it."""
        return [{name: _number(x) for name, x in row.items() if name and x} for row in self.metrics.read()]

    def film(self, updates: int) -> Path | None:
        """An episode of the weights after so many updates, of who was trained rather than of others."""
        films = {path: found for path in self.videos.glob("*.mp4") if (found := FILM.fullmatch(path.name))}
        of_these = [path for path, found in films.items() if int(found["updates"]) == updates]
        return self.inside(min(of_these, key=lambda path: len(path.name))) if of_these else None

    def film_to_be(self, updates: int, policy: str | None = None) -> Path:
        """Where the film of an evaluation belongs. A run is driven by one policy as it trains, by any in validate."""
        who = "" if policy is None else "_" + re.sub(r"[^\w+.-]", "-", policy)[:80]
        return self.inside(self.videos / f"episode_{updates:07d}{who}.mp4")

    def inside(self, path: Path) -> Path:
        """A path in the folder.

        Raises:
            UserError: it is a link that leads out of the folder.
        """
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise UserError(f"{path} leads out of the run's folder, to {path.resolve()}: take the link away")
        return path

    def forget_after(self, updates: int) -> None:
        """Drop what the tables hold of later than a checkpoint: the resumed run makes it again."""
        lines = _lines(self.evaluations)
        later = [(row := _evaluation(line)) is not None and row["updates"] > updates for line in lines]
        # what cannot be read stays, for it is not known to be later; but for a last line that a kill has cut
        kept = [line for line, is_later in zip(lines, later, strict=True) if not is_later and line.endswith(b"\n")]
        if kept != lines:
            write_atomically(self.evaluations, lambda temporary: temporary.write_bytes(b"".join(kept)))
        self.metrics.forget_after(updates)


def _append(path: Path, row: dict[str, Any]) -> None:
    try:
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                file.write(b"\n" * (file.read(1) != b"\n"))  # a line that a kill has cut swallows no other
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as cause:
        raise UserError(f"cannot write {path} ({cause.strerror})") from cause


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = _lines(path)
    rows = [_evaluation(line) for line in lines]
    wrong = [number for number, row in enumerate(rows, 1) if row is None and lines[number - 1].endswith(b"\n")]
    if wrong:
        text = f"{path}: line {wrong[0]} is no evaluation and is left out ({len(wrong)} are)"
        warnings.warn(text, stacklevel=3)
    return [row for row in rows if row is not None]


def _lines(path: Path) -> list[bytes]:
    """All lines of a file, with what ends them; none if there is no file."""
    if not path.exists():
        return []
    try:
        if not path.is_file():
            raise UserError(f"{path} is no file: move it away")
        return path.read_bytes().splitlines(keepends=True)
    except OSError as cause:
        raise UserError(f"cannot read {path} ({cause.strerror})") from cause


def _evaluation(line: bytes) -> dict[str, Any] | None:
    """A line of ``evaluations.jsonl``, if it holds numbers where they belong; else None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(returns := row.get("returns"), list) or not returns:
        return None
    counts, others = [row.get("updates"), row.get("frames")], [row.get("return_mean"), row.get("return_std")]
    numbers = [*counts, *others, *returns, row.get("seconds", 0)]
    sound = all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e300 for x in numbers)
    sound = sound and all(isinstance(x, int) and x >= 0 for x in counts)
    return row if sound and isinstance(row.get("policy", ""), str) else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # cut by a kill
        return float("nan")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
