"""The run folder: configuration, checkpoints, and tables that a resumed run continues."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from worldmodel.errors import UserError

# settings that a resumed run may change: how long, how it is watched, which checkpoint format nothing depends on
FREE = ("trainer.max_epochs", "trainer.max_time", "trainer.logger", "trainer.callbacks", "console")
COMMAND = ("run", "policy", "ckpt_path")  # of a command, not of the run


def launched_rank() -> int:
    """Rank of this process, before there is a trainer to ask: from the launcher's variables."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place: a reader sees old or new, never half.

    Raises:
        UserError: the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as cause:  # torch reports a full disk as RuntimeError
        if temporary.exists():
            temporary.unlink()
        raise UserError(f"cannot write {path} ({_line(cause)}): is the disk full? The old one is kept") from cause


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


class CheckpointIO(TorchCheckpointIO):
    """Checkpoints written atomically, and read as plain data: a hostile file runs nothing.

    Args:
        resumes: training goes on from what is read, so weights alone will not do.
    """

    def __init__(self, resumes: bool = False) -> None:
        super().__init__()
        self.resumes = resumes

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        write_atomically(Path(path), lambda temporary: torch.save(checkpoint, temporary))

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        checkpoint = load_checkpoint(Path(path), "--ckpt_path")
        if self.resumes and "optimizer_states" not in checkpoint:
            raise UserError(f"the checkpoint {path} holds weights only: nothing can be trained on from it")
        return checkpoint


def load_checkpoint(path: Path, option: str = "--checkpoint") -> dict[str, Any]:
    """Read a checkpoint with ``weights_only=True``.

    Args:
        path: of the file.
        option: by which the command that asks is given another.

    Raises:
        UserError: it is missing, cut short, of another program, or holds more than plain data.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: train first, or name another with {option}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:
        hint = "" if path.stem != "last" else f"; checkpoints/best.ckpt may serve with {option}"
        raise UserError(f"the checkpoint {path} is damaged or not one of ours ({_line(cause)[:90]}){hint}") from cause
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"the checkpoint {path} is not one of ours: it holds no state_dict")
    return checkpoint


class RunFolder:
    """Where a run keeps everything.

    Layout: ``config.yaml``, ``checkpoints/{last,best}.ckpt``, ``replay/rank_<r>/``, ``evaluations.jsonl``,
    ``metrics.csv``, ``videos/``.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config, self.evaluations = self.path / "config.yaml", self.path / "evaluations.jsonl"
        self.last, self.best = self.path / "checkpoints" / "last.ckpt", self.path / "checkpoints" / "best.ckpt"
        self.videos = self.path / "videos"

    def check(self, config: dict[str, Any], defaults: dict[str, Any] | None = None) -> None:
        """Find that the folder is free for a run of ``config``, or is a run of the same.

        A setting that its ``config.yaml`` lacks has come since that run began, and is the same if it has its default.

        Raises:
            UserError: it is of another configuration; names the first setting that differs.
        """
        if not self.config.exists():
            return
        new, known = _flat(config), _flat(defaults or {})
        old = {key: known[key] for key in new if key in known} | _flat(yaml.safe_load(self.config.read_text()) or {})
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
        if launched_rank():
            return
        text = yaml.safe_dump({k: v for k, v in config.items() if k not in COMMAND}, sort_keys=False)
        write_atomically(self.config, lambda temporary: _write(temporary, text))

    def read_config(self) -> dict[str, Any]:
        """What ``config.yaml`` holds.

        Raises:
            UserError: it is not there, no YAML, or lacks what every run has.
        """
        if not self.config.exists():
            raise UserError(f"{self.path} holds no run: there is no {self.config}")
        try:
            held = yaml.safe_load(self.config.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as cause:
            raise UserError(f"{self.config} is no YAML: {_line(cause)}") from cause
        for name in ("data", "model"):
            if not isinstance(held, dict) or not isinstance(held.get(name), dict):
                raise UserError(f"{self.config} has no settings of {name}: it is not a run's, or was cut short")
        return held

    def add_evaluation(self, row: dict[str, Any]) -> None:
        """Append a line to ``evaluations.jsonl``, at once on the disk."""
        with self.evaluations.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read_evaluations(self) -> list[dict[str, Any]]:
        """All whole lines of ``evaluations.jsonl``."""
        rows = []
        for line in self.evaluations.read_text().splitlines() if self.evaluations.exists() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:  # the last line of a run that was killed
                continue
        return rows

    def read_metrics(self) -> list[dict[str, float]]:
        """All whole lines of ``metrics.csv``: what was measured, by name; ``updates`` is always among it."""
        rows = CSVMetrics(self.path / "metrics.csv").read()
        return [{name: _number(x) for name, x in row.items() if name and x} for row in rows]

    def newest_episode(self) -> Path | None:
        """The film of the last evaluation, of who was trained rather than of others; None if there is none."""
        films = {path: path.stem.split("_", 2)[1:] for path in self.videos.glob("episode_*.mp4")}
        return max(films, key=lambda path: (len(films[path]) == 1, films[path]), default=None)

    def forget_after(self, updates: int) -> None:
        """Drop evaluations later than a checkpoint: the resumed run makes them again."""
        kept = [row for row in self.read_evaluations() if row["updates"] <= updates]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_atomically(self.evaluations, lambda temporary: _write(temporary, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text)


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


class CSVMetrics(Logger):
    """``metrics.csv`` in the run folder. Unlike Lightning's own, a resumed run continues the file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run folder holds the whole configuration already."""

    def forget_after(self, updates: int) -> None:
        """Keep the rows up to a checkpoint only."""
        rows = [row for row in self.read() if int(row["updates"]) <= updates]
        self._rewrite(rows)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"updates": step, **metrics}
        if not set(row) <= set(self._columns):
            self._columns += [name for name in row if name not in self._columns]
            self._rewrite([*self.read(), row])
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def read(self) -> list[dict[str, Any]]:
        """All whole rows, as text."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            # a line cut by a kill lacks its last fields, or its first is no number
            return [row for row in csv.DictReader(file) if None not in row.values() and row["updates"].isdigit()]

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        self._columns = list(dict.fromkeys([*self._columns, *(name for row in rows for name in row)]))

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._columns, restval="")
                writer.writeheader()
                writer.writerows(rows)

        write_atomically(self.path, write)
